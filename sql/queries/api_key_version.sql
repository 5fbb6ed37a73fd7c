SELECT version FROM api_keys_version
