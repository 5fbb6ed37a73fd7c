UPDATE users SET name = :name, email = :email WHERE id = :id RETURNING id, name, email
