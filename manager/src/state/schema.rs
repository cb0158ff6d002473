//! The tables, the schema version and the epoch. Never: what the rows mean (see `projection`).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{Epoch, MinerIdentity, StateError, database, identity, loaded, stored};

/// What makes each version of the schema from the one before; a new database takes all of them. Steps are added at the
/// end and never changed: databases that have taken them exist.
const STEPS: [&str; 14] = [
    TABLES, MEASURES, CONTROLS, ABORTS, REPOS, HOLDS, PEAKS, SCRUBS, PLEDGING, CHAIN, ORPHANS, SUPERSEDED,
    TAKEOVERS, MINERS,
];

/// The schema this program reads and writes, in SQLite's `user_version`.
const VERSION: i64 = STEPS.len() as i64;

/// How long a statement waits for another connection's transaction: one fsync of a slow disk, many times over.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// Statements a connection keeps prepared: there are fewer, and making one anew costs more than running it.
const STATEMENTS_MAX: usize = 128;

/// Pages of the database kept in memory, in KiB: those that are written again and again are not read each time.
const CACHE_KIB: i64 = 32 << 10;

/// Pages (of 4 KiB) in the WAL before they are taken into the database. Hot pages are then copied once for many commits;
/// all of it is read when a manager starts, 32 MiB in some 50 ms; it may have grown to the 64 MiB that follow.
pub(super) const CHECKPOINT_PAGES: usize = 8 << 10;

/// Where `checkpoint` does not come to it, whoever commits takes so many into the database.
const CHECKPOINT_PAGES_MOST: usize = 2 * CHECKPOINT_PAGES;

const TABLES: &str = "
CREATE TABLE miner (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
    actor INTEGER NOT NULL, sector_size INTEGER NOT NULL, beacon BLOB NOT NULL
) STRICT;
-- epoch: of the newest manager. last_ms: the latest time in any event. next_*: ids never given out before.
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES ('epoch', 0), ('last_ms', 0), ('next_sector', 1), ('next_task', 1);
-- The truth. Rows are added and never changed.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    miner INTEGER, number INTEGER, task INTEGER, attempt INTEGER, body TEXT NOT NULL
) STRICT;
CREATE INDEX event_of_sector ON event (miner, number, seq) WHERE number IS NOT NULL;
-- All below is what the events amount to.
CREATE TABLE sector (
    miner INTEGER NOT NULL, number INTEGER NOT NULL, proof INTEGER NOT NULL, state TEXT NOT NULL,
    record TEXT NOT NULL, changed_ms INTEGER NOT NULL, PRIMARY KEY (miner, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE task (
    id INTEGER PRIMARY KEY, miner INTEGER NOT NULL, number INTEGER NOT NULL, proof INTEGER NOT NULL,
    kind TEXT NOT NULL, step TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    queued_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX task_of_sector ON task (miner, number, id);
CREATE INDEX task_open ON task (id) WHERE ended_ms = 0;
CREATE INDEX task_ended ON task (ended_ms) WHERE ended_ms > 0;
CREATE TABLE attempt (
    task INTEGER NOT NULL REFERENCES task (id), attempt INTEGER NOT NULL, worker TEXT NOT NULL, name TEXT NOT NULL,
    url TEXT NOT NULL, peer TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, bound_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, bytes_fetched INTEGER NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
-- state: held, returned, or orphan (returned by a worker, asked for by nobody we know; kept with its result).
CREATE TABLE call (
    id TEXT PRIMARY KEY, task INTEGER, attempt INTEGER, stage TEXT NOT NULL, state TEXT NOT NULL,
    accepted_ms INTEGER NOT NULL, returned_ms INTEGER NOT NULL, result TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX call_of_attempt ON call (task, attempt);
-- Bytes promised to an attempt on a path; gone when the attempt ends.
CREATE TABLE reservation (
    task INTEGER NOT NULL, attempt INTEGER NOT NULL, path TEXT NOT NULL, types INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, path, types)
) STRICT, WITHOUT ROWID;
";

/// Version 2: what workers, by name, were measured at; see `measure`.
const MEASURES: &str = "
CREATE TABLE duration (
    worker TEXT NOT NULL, kind TEXT NOT NULL, proof INTEGER NOT NULL, count INTEGER NOT NULL, mean_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (worker, kind, proof)
) STRICT, WITHOUT ROWID;
CREATE TABLE throughput (
    worker TEXT PRIMARY KEY, bytes INTEGER NOT NULL, millis INTEGER NOT NULL, at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 3: what operators set; see `control`.
const CONTROLS: &str = "
-- A worker is its name and the URL it is reached at; a machine has no URL. mode_ms: 0 = never set. caps: JSON.
CREATE TABLE control (
    machine INTEGER NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, mode TEXT NOT NULL, mode_by TEXT NOT NULL,
    mode_ms INTEGER NOT NULL, caps TEXT NOT NULL, PRIMARY KEY (machine, name, url)
) STRICT, WITHOUT ROWID;
ALTER TABLE sector ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- NULL: the sector's.
ALTER TABLE task ADD COLUMN priority INTEGER;
-- Attempts that were given up while a Lotus worker still has them; their tasks have ended.
CREATE INDEX attempt_detached ON attempt (task) WHERE state = 'detached';
";

/// Version 4: an operator's abort holds also when the manager ends before the worker heard of it.
const ABORTS: &str = "
-- When an operator asked for its end; 0 = nobody did.
ALTER TABLE attempt ADD COLUMN abort_ms INTEGER NOT NULL DEFAULT 0;
";

/// Version 5: a worker is known by its repo's id, too.
const REPOS: &str = "
-- Empty: not known.
ALTER TABLE control ADD COLUMN repo TEXT NOT NULL DEFAULT '';
";

/// Version 6: a sector that is being moved is held over a restart; see `hold`.
const HOLDS: &str = "
CREATE TABLE hold (
    miner INTEGER NOT NULL, number INTEGER NOT NULL, types INTEGER NOT NULL, path TEXT NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (miner, number)
) STRICT, WITHOUT ROWID;
";

/// Version 7: what tasks took besides time; see `measure`.
const PEAKS: &str = "
-- 0: not measured.
ALTER TABLE duration ADD COLUMN peak_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE duration ADD COLUMN cpu_ms INTEGER NOT NULL DEFAULT 0;
";

/// Version 8: what scrubbing last found of each file; see `scrub`.
const SCRUBS: &str = "
CREATE TABLE scrub (
    miner INTEGER NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, path TEXT NOT NULL, host TEXT NOT NULL,
    at_ms INTEGER NOT NULL, verdict TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (miner, number, file, path)
) STRICT, WITHOUT ROWID;
";

/// Version 9: whether an operator has paused what the manager pledges by itself.
const PLEDGING: &str = "INSERT INTO counter VALUES ('pledging_paused', 0);";

/// Version 10: the chain that the sectors are for; no row: none.
const CHAIN: &str = "
CREATE TABLE chain (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0), network TEXT NOT NULL, genesis TEXT NOT NULL
) STRICT;
";

/// Version 11: the few results that nobody asked for are found among all calls there ever were.
const ORPHANS: &str = "CREATE INDEX call_orphan ON call (returned_ms) WHERE state = 'orphan';";

/// Version 12: copies that are older than what a later attempt has made of them elsewhere; see `superseded`.
const SUPERSEDED: &str = "
CREATE TABLE superseded (
    miner INTEGER NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, path TEXT NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (miner, number, file, path)
) STRICT, WITHOUT ROWID;
";

/// Version 13: from whom this manager descends, and who has taken over from it; see `reign`.
const TAKEOVERS: &str = "
-- A random id of each take-over since `init`.
CREATE TABLE takeover (nth INTEGER PRIMARY KEY, id TEXT NOT NULL) STRICT;
CREATE TABLE overtaken (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 0), reign TEXT NOT NULL, since_ms INTEGER NOT NULL
) STRICT;
";

/// Version 14: miners that are served beside the first one; see `identity`.
const MINERS: &str = "
-- next_sector: the number that its next sector gets; that of the first miner is in table `counter`.
CREATE TABLE added_miner (actor INTEGER PRIMARY KEY, next_sector INTEGER NOT NULL) STRICT;
";

/// Makes the file, its tables and the miner's row.
pub(super) fn create(path: &Path, miner: &MinerIdentity) -> Result<(), StateError> {
    let mut connection = Connection::open(path).map_err(database("be created"))?;
    // It holds the beacon's secret. SQLite gives its WAL the same mode.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| {
        StateError::Corrupt {
            what: "file mode",
            detail: format!("{} cannot be made private: {source}", path.display()),
        }
    })?;
    configure(&connection)?;
    let transaction = connection.transaction().map_err(database("begin"))?;
    take_steps(&transaction, 0)?;
    identity::store(&transaction, miner)?;
    transaction.commit().map_err(database("commit"))?;
    // One file again, so that a new repo can be moved into place as a whole.
    connection.pragma_update(None, "journal_mode", "DELETE").map_err(database("leave WAL mode"))?;
    connection.close().map_err(|(_, source)| StateError::Database { action: "close", source })
}

/// Brings a schema of this version to ours, and says so in the file.
fn take_steps(db: &Connection, from: usize) -> Result<(), StateError> {
    for step in STEPS.iter().skip(from) {
        db.execute_batch(step).map_err(database("make its tables"))?;
    }
    db.pragma_update(None, "user_version", VERSION).map_err(database("store its version"))
}

/// Raises the number that the next sector of a miner gets: each counts its own.
pub(super) fn raise_next_sector(connection: &Connection, miner: i64, next: u64) -> Result<(), StateError> {
    let stored_next = stored("sector number", next)?;
    let added = connection
        .prepare_cached("UPDATE added_miner SET next_sector = max(next_sector, ?2) WHERE actor = ?1")
        .and_then(|mut statement| statement.execute((miner, stored_next)))
        .map_err(database("store the next sector number"))?;
    if added == 0 { raise_counter(connection, "next_sector", next) } else { Ok(()) }
}

/// Opens an existing database. One of an earlier version is brought to ours, as a whole or not at all; the program that
/// wrote it can then no longer open it.
pub(super) fn open(path: &Path) -> Result<Connection, StateError> {
    let (mut connection, found) = connect(path)?;
    let from = step(path, found)?;
    configure(&connection)?;
    if from < STEPS.len() {
        let transaction = begin_upgrade(&mut connection)?;
        take_steps(&transaction, from)?;
        transaction.commit().map_err(database("commit an upgrade"))?;
        tracing::info!(path = %path.display(), from = found, to = VERSION, "the state database was upgraded");
    }
    Ok(connection)
}

/// Reads an existing database, of ours or an earlier version, as if it were of ours, and changes nothing in it.
pub(super) fn as_if_upgraded<T>(
    path: &Path,
    read: impl FnOnce(&Connection) -> Result<T, StateError>,
) -> Result<T, StateError> {
    let (mut connection, found) = connect(path)?;
    let from = step(path, found)?;
    connection.busy_timeout(BUSY_WAIT).map_err(database("set its wait limit"))?;
    let transaction = if from < STEPS.len() {
        // Dropped without a commit, it never was.
        let transaction = begin_upgrade(&mut connection)?;
        take_steps(&transaction, from)?;
        transaction
    } else {
        // Whoever writes it does not wait for a reader.
        connection.transaction().map_err(database("begin to read"))?
    };
    read(&transaction)
}

fn begin_upgrade(connection: &mut Connection) -> Result<Transaction<'_>, StateError> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    begun.map_err(database("begin an upgrade"))
}

/// The first step that a database of this version has not taken.
fn step(path: &Path, found: i64) -> Result<usize, StateError> {
    let from = usize::try_from(found).ok().filter(|from| *from <= STEPS.len());
    from.ok_or_else(|| StateError::Schema { path: path.to_owned(), found, expected: VERSION })
}

/// Opens a database that some manager may be using, and changes nothing in it: one of another version is refused.
pub(super) fn open_unchanged(path: &Path) -> Result<Connection, StateError> {
    let (connection, found) = connect(path)?;
    if found != VERSION {
        return Err(StateError::Schema { path: path.to_owned(), found, expected: VERSION });
    }
    connection.busy_timeout(BUSY_WAIT).map_err(database("set its wait limit"))?;
    Ok(connection)
}

/// A connection and the version of the schema it found.
fn connect(path: &Path) -> Result<(Connection, i64), StateError> {
    if !path.is_file() {
        return Err(StateError::Missing { path: path.to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(database("be opened"))?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(
        |source| match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                StateError::Damaged { path: path.to_owned(), source }
            }
            _ => database("tell its version")(source),
        },
    )?;
    // An empty file is a database of version 0 to SQLite.
    if found == 0 {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        let source = rusqlite::Error::SqliteFailure(code, Some("it holds no tables".to_owned()));
        return Err(StateError::Damaged { path: path.to_owned(), source });
    }
    Ok((connection, found))
}

fn configure(connection: &Connection) -> Result<(), StateError> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(database("set its cache's size"))?;
    connection
        .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES_MOST as i64)
        .map_err(database("set when its WAL is taken in"))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.busy_timeout(BUSY_WAIT).map_err(database("set its wait limit"))?;
    // Both pragmas answer with the value in force; a file system that cannot do WAL says so here.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(database("enter WAL mode"))?;
    if !mode.eq_ignore_ascii_case("wal") {
        let detail = format!("{mode}; put the repo on a local file system, where SQLite's WAL works");
        return Err(StateError::Corrupt { what: "journal mode", detail });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(database("set synchronous=FULL"))?;
    connection.pragma_update(None, "foreign_keys", "ON").map_err(database("set foreign_keys=ON"))
}

/// Begins the next epoch. Also gives the latest stored time in Unix milliseconds.
pub(super) fn begin_epoch(connection: &mut Connection) -> Result<(Epoch, u64), StateError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(database("begin an epoch"))?;
    let last = counter(&transaction, "epoch")?;
    let epoch = last.checked_add(1).ok_or_else(|| StateError::Corrupt {
        what: "epoch",
        detail: format!("{last} is the last there is"),
    })?;
    raise_counter(&transaction, "epoch", epoch)?;
    let last_ms = counter(&transaction, "last_ms")?;
    transaction.commit().map_err(database("begin an epoch"))?;
    Ok((Epoch(epoch), last_ms))
}

/// The newest epoch in the database.
pub(super) fn newest_epoch(connection: &Connection) -> Result<Epoch, StateError> {
    counter(connection, "epoch").map(Epoch)
}

/// One of the counters.
pub(super) fn counter(connection: &Connection, name: &'static str) -> Result<u64, StateError> {
    let value: i64 = connection
        .prepare_cached("SELECT value FROM counter WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)))
        .map_err(database("read a counter"))?;
    loaded(name, value)
}

/// Raises a counter; a smaller value changes nothing.
pub(super) fn raise_counter(
    connection: &Connection,
    name: &'static str,
    value: u64,
) -> Result<(), StateError> {
    let value = stored(name, value)?;
    connection
        .prepare_cached("UPDATE counter SET value = max(value, ?2) WHERE name = ?1")
        .and_then(|mut statement| statement.execute((name, value)))
        .map_err(database("store a counter"))?;
    Ok(())
}
