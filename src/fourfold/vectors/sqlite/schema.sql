-- The embedded vectors, format 1. Told by vectors/sqlite/file.py, written by vectors/sqlite/fragments.py and store.py.
-- A point is never updated: its owner's points are deleted and inserted anew. Ids are never reused (AUTOINCREMENT) and
-- writers are serialised, so "id above the last I saw" is what's new to a process that has the others in memory.

CREATE TABLE collection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    payload TEXT NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,  -- counts the transactions that changed its points,
    points INTEGER NOT NULL DEFAULT 0       -- and their number: one row, read in the same snapshot as the search itself
);

CREATE TABLE token (
    collection_id INTEGER NOT NULL,
    token INTEGER NOT NULL,                 -- absent means revoked
    PRIMARY KEY (collection_id, token)
) WITHOUT ROWID;

CREATE TABLE owner (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id INTEGER NOT NULL,
    hash BLOB NOT NULL,                     -- Owner.hash: the order of scans
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,                   -- of the fragment as written; empty is invalidated
    UNIQUE (collection_id, hash)
);

-- The payload before the vector, the text last: what a search reads never lies behind an overflow page of the text.
CREATE TABLE point (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id INTEGER NOT NULL,
    owner_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    payload TEXT NOT NULL,
    vector BLOB NOT NULL,
    text TEXT,
    UNIQUE (owner_id, ordinal)
);

CREATE INDEX point_collection ON point (collection_id);

-- What a payload says, a row per field and member, for filters. `value` has no type: numbers compare as numbers.
CREATE TABLE term (
    collection_id INTEGER NOT NULL,
    field TEXT NOT NULL,
    value NOT NULL,
    point_id INTEGER NOT NULL,
    PRIMARY KEY (collection_id, field, value, point_id)
) WITHOUT ROWID;
