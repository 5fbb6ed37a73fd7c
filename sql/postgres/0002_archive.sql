-- News articles as they were last fetched, served when every source of news is down.
CREATE TABLE archived_articles (
    category     TEXT NOT NULL,       -- '' where they were fetched without one
    url          TEXT NOT NULL,
    source       TEXT NOT NULL,
    published_at BIGINT NOT NULL,     -- seconds since 1970
    stored_at    BIGINT NOT NULL,     -- seconds since 1970: when a source last listed it
    json         TEXT NOT NULL,
    PRIMARY KEY (category, url)
);
CREATE INDEX archived_articles_newest ON archived_articles (category, published_at DESC);
CREATE INDEX archived_articles_url ON archived_articles (url, category);
CREATE INDEX archived_articles_stored ON archived_articles (stored_at);
