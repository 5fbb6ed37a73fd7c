-- What triggers left in this very transaction, as far as the names are among those that the writer delivers by itself.
DELETE FROM larder_outbox
WHERE xmin = pg_current_xact_id()::xid AND names <@ ARRAY(SELECT json_array_elements_text(:names))
