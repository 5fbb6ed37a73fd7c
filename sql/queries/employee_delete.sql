DELETE FROM employees WHERE id = :id
