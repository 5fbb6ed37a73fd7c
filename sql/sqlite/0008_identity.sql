-- Who this database is: a random text that its first start makes. What comes from its rows stands in Redis under it, so that two larders
-- with a database each never read each other's. It goes with a dump. A copy that lives on beside its original gets one of its
-- own by DELETE FROM larder_identity, before it is started.
CREATE TABLE larder_identity (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
);
