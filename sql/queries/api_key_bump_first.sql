-- Changes a row only where no key was ever made, and holds that row until the transaction ends.
UPDATE api_keys_version SET version = 1 WHERE version = 0
