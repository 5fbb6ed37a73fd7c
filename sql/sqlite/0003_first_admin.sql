-- Whether an admin key was ever made here: the first start of a database makes one, and no later start does, also where all
-- admin keys have been revoked since.
ALTER TABLE api_keys_version ADD COLUMN admin_made BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE api_keys_version SET admin_made = EXISTS (SELECT 1 FROM api_keys WHERE admin);
