-- The embedded graph, format 1. Told by graph/sqlite_file.py, written by graph/sqlite.py only.
-- node.owner and edge.owner are owner.id. A node without owner is a stub (stub = 1) or somebody else's (stub = 0).

CREATE TABLE token (
    token INTEGER PRIMARY KEY               -- absent means revoked
) STRICT;

CREATE TABLE owner (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,              -- Owner.hash: the order of scans
    owner TEXT NOT NULL,                    -- str(Owner)
    digest BLOB                             -- of the fragment as written; NULL is invalidated: compare contents
) STRICT;

CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    key TEXT NOT NULL,                      -- NodeRef.key
    identity TEXT NOT NULL,                 -- JSON list: the names of the identity's properties, sorted
    properties TEXT NOT NULL,               -- JSON object, sorted by name, identity included
    owner INTEGER,
    stub INTEGER NOT NULL DEFAULT 0,
    UNIQUE (label, key)
) STRICT;

CREATE INDEX node_owner ON node (owner) WHERE owner IS NOT NULL;
CREATE INDEX node_stub ON node (label) WHERE stub;

-- No foreign keys onto node: the one writer keeps them by its plan, and checks would look up both ends of each edge again.
CREATE TABLE edge (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    properties TEXT NOT NULL,
    owner INTEGER
) STRICT;

CREATE INDEX edge_source ON edge (source, type, target);
CREATE INDEX edge_target ON edge (target, type, source);
CREATE INDEX edge_owner ON edge (owner);
