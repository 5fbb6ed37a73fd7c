SELECT url, source, published_at, json FROM archived_articles
WHERE category = :category
ORDER BY published_at DESC, url
LIMIT :limit
