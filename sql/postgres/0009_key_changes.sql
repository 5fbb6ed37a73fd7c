-- The last changes of api_keys, one row for each version: whoever knows a version reads what came after it, and not all keys.
-- A version without a row was made by an older larder or by hand: then all keys are read.
CREATE TABLE api_key_changes (
    version BIGINT PRIMARY KEY,
    id      TEXT NOT NULL       -- the key that was made or revoked
);

-- For the pages of a long list. Only the owner of a table may index it. Where that is another role the
-- pages work without the index, only slower.
DO $migration$
BEGIN
    IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'api_keys'::regclass), 'USAGE') THEN
        CREATE INDEX api_keys_by_age ON api_keys (created_at, id);
    END IF;
END
$migration$;
