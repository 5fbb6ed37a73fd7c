-- Two small tables to begin with, and a few rows to ask for: an embedded database is there to try things.
CREATE TABLE IF NOT EXISTS users (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    name  TEXT NOT NULL,
    email TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS employees (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL,
    title        TEXT NOT NULL,
    status       TEXT NOT NULL DEFAULT 'out' CHECK (status IN ('in', 'out')),
    status_since TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))    -- when the status last changed, RFC 3339
);
INSERT INTO users (name, email)
SELECT * FROM (VALUES
    ('Ada Lovelace', 'ada@example.com'),
    ('Alan Turing', 'alan@example.com'),
    ('Grace Hopper', 'grace@example.com'))
WHERE NOT EXISTS (SELECT 1 FROM users);
INSERT INTO employees (name, title, status)
SELECT * FROM (VALUES
    ('Katherine Johnson', 'Mathematician', 'in'),
    ('Edsger Dijkstra', 'Programmer', 'out'),
    ('Barbara Liskov', 'Professor', 'in'))
WHERE NOT EXISTS (SELECT 1 FROM employees);
