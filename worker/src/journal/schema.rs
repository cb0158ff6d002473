//! The journal's tables. Never: reads or writes a row.

/// The version of the tables, in SQLite's `user_version`.
pub(super) const SCHEMA_VERSION: i64 = 2;

pub(super) const SCHEMA: &str = "
CREATE TABLE call (
    id        TEXT PRIMARY KEY,           -- the uuid of the call id
    sector    TEXT NOT NULL,              -- SectorRef as JSON
    attempt   TEXT,                       -- task.attempt, from a Sealyard manager
    method    TEXT NOT NULL,              -- the Return method as JSON
    digest    BLOB UNIQUE,                -- of attempt and input; null without an attempt
    input     TEXT,                       -- TaskInput as JSON; null once acknowledged
    phase     TEXT NOT NULL CHECK (phase IN ('accepted', 'running', 'returning', 'refused', 'acknowledged')),
    created   TEXT NOT NULL DEFAULT '[]', -- paths that did not exist before this call, as JSON
    pid       INTEGER,                    -- the executor, while it runs
    starttime TEXT,                       -- when that process began: boot id and ticks
    result    TEXT,                       -- Result<TaskOutput, CallError> as JSON
    account   TEXT,                       -- AttemptAccount as JSON
    running   TEXT                        -- Running as JSON, while the executor runs
) STRICT;
CREATE INDEX call_phase ON call (phase);
CREATE TABLE life (
    session TEXT NOT NULL,                -- one row: the last start of the worker
    url     TEXT,                         -- where it served its files
    joined  TEXT                          -- the session of the manager process that it joined last
) STRICT;
";

/// Which manager is served: [`sealtasks::Reign::to_line`], one row. Made when it is first asked for.
pub(super) const SERVED: &str = "CREATE TABLE IF NOT EXISTS served (reign TEXT NOT NULL) STRICT";

/// What version 2 added to version 1: what a restarted worker must know of a running executor to go on waiting for it.
pub(super) const FROM_VERSION_1: &str = "
ALTER TABLE call ADD COLUMN running TEXT;
ALTER TABLE life ADD COLUMN url TEXT;
ALTER TABLE life ADD COLUMN joined TEXT;
";
