DELETE FROM archived_articles WHERE stored_at < :before
