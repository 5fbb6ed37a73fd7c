-- Due in two seconds: the writer delivers the row right after its commit. If the writer has died by
-- then, another replica delivers it.
WITH changed AS (SELECT array_agg(name) AS names FROM json_array_elements_text(:names) AS name)
INSERT INTO larder_outbox (names, due_at)
SELECT names, clock_timestamp() + interval '2 seconds' FROM changed, larder_take_back(names)
RETURNING id
