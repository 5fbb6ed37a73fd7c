UPDATE api_keys_version SET version = version + 1
