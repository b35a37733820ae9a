{{ staged_versions('telemetry', ['event_id', 'device_id', 'zone', 'ts', 'kpi', 'value']) }}
