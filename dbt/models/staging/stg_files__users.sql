{{ staged_versions('users', ['userid', 'location']) }}
