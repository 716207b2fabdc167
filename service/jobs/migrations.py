"""The numbered schemas of the database of files and batches, for SQLite and for PostgreSQL.

Migration n has the same number and the same columns in both. `owner` is the name of the API key
that made a file or a batch; it is empty without keys, and in rows of older versions. `lease_holder`
is the process that executes a job, until `lease_until` if the database is shared. `output_url` is
the address in a store to which a job writes, which no other active job may have.
"""

from hsoftmax.scoring.migrations import Migrations

SQLITE: Migrations = [
    [
        "CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY AUTOINCREMENT,"
        " id TEXT UNIQUE, purpose TEXT, filename TEXT, bytes INTEGER, created_at INTEGER,"
        " path TEXT)",
        "CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY AUTOINCREMENT,"
        " id TEXT UNIQUE, status TEXT, begun INTEGER DEFAULT 0, finished INTEGER DEFAULT 0,"
        " owed INTEGER DEFAULT 0, deadline INTEGER, ended_at INTEGER, input_file TEXT,"
        " key TEXT UNIQUE, body TEXT, spec BLOB, ending BLOB, object BLOB)",
        "CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status)",
    ],
    ["ALTER TABLE files ADD COLUMN expires_at INTEGER"],
    [
        "ALTER TABLE files ADD COLUMN owner TEXT",
        "ALTER TABLE batches ADD COLUMN owner TEXT",
        "ALTER TABLE batches ADD COLUMN lease_holder TEXT",
        "ALTER TABLE batches ADD COLUMN lease_until REAL",
    ],
    ["ALTER TABLE batches ADD COLUMN output_url TEXT"],
]
POSTGRES: Migrations = [
    [
        "CREATE TABLE IF NOT EXISTS files (number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " id TEXT UNIQUE, purpose TEXT, filename TEXT, bytes BIGINT, created_at BIGINT,"
        " path TEXT)",
        "CREATE TABLE IF NOT EXISTS batches (number BIGINT GENERATED ALWAYS AS IDENTITY"
        " PRIMARY KEY, id TEXT UNIQUE, status TEXT, begun INTEGER DEFAULT 0,"
        " finished BIGINT DEFAULT 0, owed INTEGER DEFAULT 0, deadline BIGINT, ended_at BIGINT,"
        " input_file TEXT, key TEXT UNIQUE, body TEXT, spec BYTEA, ending TEXT, object TEXT)",
        "CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status)",
    ],
    ["ALTER TABLE files ADD COLUMN expires_at BIGINT"],
    [
        "ALTER TABLE files ADD COLUMN owner TEXT",
        "ALTER TABLE batches ADD COLUMN owner TEXT",
        "ALTER TABLE batches ADD COLUMN lease_holder TEXT",
        "ALTER TABLE batches ADD COLUMN lease_until DOUBLE PRECISION",
    ],
    ["ALTER TABLE batches ADD COLUMN output_url TEXT"],
]
