-- To be run after the version was incremented, in the same transaction.
INSERT INTO api_key_changes (version, id) SELECT version, :id FROM api_keys_version WHERE TRUE
ON CONFLICT (version) DO UPDATE SET id = excluded.id
