-- After the first admin key was removed: the next start creates another one, unless an admin key
-- exists by then.
UPDATE api_keys_version
SET version = version + 1, admin_made = EXISTS (SELECT 1 FROM api_keys WHERE admin)
