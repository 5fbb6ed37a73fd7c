-- After the first admin key was taken back: the next start makes another, unless somebody made one meanwhile.
UPDATE api_keys_version
SET version = version + 1, admin_made = EXISTS (SELECT 1 FROM api_keys WHERE admin)
