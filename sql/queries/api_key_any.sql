SELECT count(*) AS keys FROM (SELECT id FROM api_keys LIMIT 1) AS found
