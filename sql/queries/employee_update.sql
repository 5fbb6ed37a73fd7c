UPDATE employees SET name = :name, title = :title WHERE id = :id
RETURNING id, name, title, status, status_since
