SELECT id, name, title FROM employees WHERE id = :id
