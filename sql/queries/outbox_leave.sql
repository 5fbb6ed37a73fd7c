-- Not due at once: the writer delivers it right after its commit, and only if it is gone by then somebody else has to. What triggers
-- left in this very transaction goes, as far as its names are among those of the writer.
WITH given AS (SELECT array_agg(name) AS names FROM json_array_elements_text(:names) AS name),
double AS (DELETE FROM larder_outbox USING given
           WHERE larder_outbox.xmin = pg_current_xact_id()::xid AND larder_outbox.names <@ given.names)
INSERT INTO larder_outbox (names, due_at)
SELECT names, clock_timestamp() + interval '2 seconds' FROM given
RETURNING id
