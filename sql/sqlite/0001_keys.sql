-- API keys. Only the SHA-256 of a key is kept, never the key.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL,
    rate         TEXT,                -- NULL: the configured default; else 'unlimited' or a rate such as '600/1m'
    admin        BOOLEAN NOT NULL,
    created_at   INTEGER NOT NULL,    -- milliseconds since 1970
    last_used_at INTEGER
);

-- One row. Its version changes in the transaction that changes api_keys, so that replicas need to read only this.
CREATE TABLE api_keys_version (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
);
INSERT INTO api_keys_version (one, version) VALUES (1, 0);
