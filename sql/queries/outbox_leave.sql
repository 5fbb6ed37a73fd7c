-- Not due at once: the writer delivers it right after its commit, and only if it is gone by then somebody else has to.
INSERT INTO larder_outbox (names, due_at)
SELECT array_agg(name), clock_timestamp() + interval '2 seconds'
FROM json_array_elements_text(:names) AS name
RETURNING id
