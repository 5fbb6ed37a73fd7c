-- An article in several categories counts once, in the first of them.
SELECT url, source, published_at, json FROM archived_articles AS one
WHERE NOT EXISTS (SELECT 1 FROM archived_articles AS other WHERE other.url = one.url AND other.category < one.category)
ORDER BY published_at DESC, url
LIMIT :limit
