-- Setting the present status again does not change its age.
UPDATE employees
SET status = :status,
    status_since = CASE WHEN status = :status THEN status_since ELSE strftime('%Y-%m-%dT%H:%M:%fZ', 'now') END
WHERE id = :id
RETURNING id, name, title, status, status_since
