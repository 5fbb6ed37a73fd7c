-- Without WHERE true, SQLite would parse ON CONFLICT as the condition of a join.
INSERT INTO archived_articles (category, url, source, published_at, stored_at, json)
SELECT :category, value ->> 'url', value ->> 'source', value ->> 'published_at', :now, value ->> 'json'
FROM json_each(:articles)
WHERE true
ON CONFLICT (category, url) DO UPDATE
SET source = excluded.source, published_at = excluded.published_at, stored_at = excluded.stored_at, json = excluded.json
