-- Not due at once: the writer delivers it right after its commit, and only if it is gone by then somebody else has to.
WITH given AS (SELECT array_agg(name) AS names FROM json_array_elements_text(:names) AS name)
INSERT INTO larder_outbox (names, due_at)
SELECT names, clock_timestamp() + interval '2 seconds' FROM given, larder_take_back(names)
RETURNING id
