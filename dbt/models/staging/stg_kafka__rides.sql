{{
    staged_versions('rides', [
        'pulocationid',
        'dolocationid',
        'trip_distance',
        'total_amount',
        'tpep_pickup_datetime',
    ])
}}
