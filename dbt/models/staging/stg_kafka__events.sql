{{ staged_versions('events', ['event_id', 'event_type', 'time', 'payload']) }}
