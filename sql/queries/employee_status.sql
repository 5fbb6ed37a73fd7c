SELECT status, status_since FROM employees WHERE id = :id
