-- Saying again what is so already changes nothing: the status is as old as it was.
UPDATE employees
SET status = :status,
    status_since = CASE WHEN status = :status THEN status_since ELSE strftime('%Y-%m-%dT%H:%M:%fZ', 'now') END
WHERE id = :id
RETURNING id, name, title, status, status_since
