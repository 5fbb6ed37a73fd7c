SELECT v.version AS version, c.id AS changed
FROM api_keys_version v LEFT JOIN api_key_changes c ON c.version = v.version
