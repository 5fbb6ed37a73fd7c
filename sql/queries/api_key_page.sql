SELECT id, name, hash, rate, admin, created_at, last_used_at FROM api_keys
WHERE (created_at, id) > (:created_at, :id) ORDER BY created_at, id LIMIT :limit
