INSERT INTO employees (name, title) VALUES (:name, :title)
RETURNING id, name, title, status, status_since
