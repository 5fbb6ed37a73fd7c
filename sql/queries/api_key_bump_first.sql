-- Changes a row only where no admin key was ever made, and holds that row until the transaction ends.
UPDATE api_keys_version SET version = version + 1, admin_made = TRUE WHERE NOT admin_made
