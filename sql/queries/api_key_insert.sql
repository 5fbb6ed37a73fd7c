INSERT INTO api_keys (id, name, hash, rate, admin, created_at)
VALUES (:id, :name, :hash, :rate, :admin, :created_at)
