-- Makes the row due and notifies the readers. Its writer has invalidated the names on its own
-- replica only, so every replica has to read them for itself.
WITH due AS (UPDATE larder_outbox SET due_at = clock_timestamp() WHERE id = :id RETURNING id)
SELECT pg_notify('larder_outbox', '')::text FROM due
