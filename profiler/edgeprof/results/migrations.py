"""How the store's tables came to be: one entry a version, never edited once released, applied in order."""

from __future__ import annotations

#: Version n is made by ``MIGRATIONS[n - 1]``. The result itself is kept as JSON; the columns only find it.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE results (
            id TEXT PRIMARY KEY,
            created TEXT NOT NULL,          -- as in the result
            created_utc TEXT NOT NULL,      -- sorts
            edgeprof TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            board TEXT NOT NULL,
            hostname TEXT NOT NULL,
            scenario TEXT NOT NULL,
            preset TEXT NOT NULL,
            interrupted INTEGER NOT NULL,
            json TEXT NOT NULL
        )""",
        "CREATE INDEX results_created ON results (created_utc)",
        """CREATE TABLE variants (
            result_id TEXT NOT NULL REFERENCES results (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            created_utc TEXT NOT NULL,
            model TEXT NOT NULL,
            sha256 TEXT,
            variant TEXT NOT NULL,
            runtime TEXT NOT NULL,          -- '' where the variant never loaded
            device TEXT NOT NULL,
            scenario TEXT NOT NULL,
            status TEXT NOT NULL,
            provenance TEXT NOT NULL,
            energy_j REAL,
            energy_u_j REAL,
            net_j REAL,
            latency_p50_s REAL,
            accuracy REAL,
            size_bytes INTEGER,
            PRIMARY KEY (result_id, position)
        )""",
        "CREATE INDEX variants_newest ON variants (model, variant, runtime, scenario, created_utc)",
    ),
    (  # of a fleet's store: which job of which device a result answers
        """CREATE TABLE jobs (
            key TEXT PRIMARY KEY,
            device TEXT NOT NULL,
            result_id TEXT NOT NULL UNIQUE REFERENCES results (id) ON DELETE CASCADE,
            received_utc TEXT NOT NULL
        )""",
    ),
    (
        # Without a foreign key: a result that is saved again, with more variants, keeps its name and its tags.
        "CREATE TABLE names (result_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        "CREATE TABLE tags (result_id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (result_id, tag))",
    ),
)
