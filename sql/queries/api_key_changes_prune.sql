DELETE FROM api_key_changes WHERE version <= (SELECT version FROM api_keys_version) - 10000
