INSERT INTO archived_articles (category, url, source, published_at, stored_at, json)
SELECT :category, url, source, published_at, :now, json
FROM json_to_recordset(:articles) AS article (url text, source text, published_at bigint, json text)
ON CONFLICT (category, url) DO UPDATE
SET source = excluded.source, published_at = excluded.published_at, stored_at = excluded.stored_at, json = excluded.json
