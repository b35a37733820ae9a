{{ staged_versions('events', ['event_id', 'event_time', 'user_id', 'event_type', 'payload', 'schema_version']) }}
