-- The last changes of api_keys, one row for each version: whoever knows a version reads what came after it, and not all keys.
-- A version without a row was made by an older larder or by hand: then all keys are read.
CREATE TABLE api_key_changes (
    version BIGINT PRIMARY KEY,
    id      TEXT NOT NULL       -- the key that was made or revoked
);

-- For the pages of a long list.
CREATE INDEX api_keys_by_age ON api_keys (created_at, id);
