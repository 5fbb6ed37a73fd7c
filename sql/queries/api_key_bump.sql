UPDATE api_keys_version SET version = version + 1, admin_made = (admin_made OR :admin)
