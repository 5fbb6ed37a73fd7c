SELECT c.version AS version, c.id AS changed, k.id AS id, k.name, k.hash, k.rate, k.admin, k.created_at, k.last_used_at
FROM api_key_changes c LEFT JOIN api_keys k ON k.id = c.id
WHERE c.version >= :known ORDER BY c.version
