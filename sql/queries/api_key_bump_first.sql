-- Changes a row only if no admin key was ever created. Locks that row until the transaction ends.
UPDATE api_keys_version SET version = version + 1, admin_made = TRUE WHERE NOT admin_made
