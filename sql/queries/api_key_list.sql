SELECT id, name, hash, rate, admin, created_at, last_used_at FROM api_keys ORDER BY created_at, id
