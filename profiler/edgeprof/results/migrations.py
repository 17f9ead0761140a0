"""The statements that make the store's tables: one entry per version, applied in order, never edited once released."""

from __future__ import annotations

#: ``MIGRATIONS[n - 1]`` makes version n. The result itself is stored as JSON; the other columns serve to find it.
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
    (  # in a fleet's store: the job and the device that a result belongs to
        """CREATE TABLE jobs (
            key TEXT PRIMARY KEY,
            device TEXT NOT NULL,
            result_id TEXT NOT NULL UNIQUE REFERENCES results (id) ON DELETE CASCADE,
            received_utc TEXT NOT NULL
        )""",
    ),
    (
        # No foreign key, so that a result which is saved again, with more variants, keeps its name and its tags.
        "CREATE TABLE names (result_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        "CREATE TABLE tags (result_id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (result_id, tag))",
    ),
)
