{{
    staged_versions('jobs', [
        'jobidentifier',
        'userid',
        'jobcreatedate',
        'jobdate',
        'jobstatus',
        'location',
        'revenue as reported_revenue',
        'servicename',
    ])
}}
