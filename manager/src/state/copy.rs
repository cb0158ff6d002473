//! Consistent copies of the database while a manager writes it, and what makes a copy fit for a manager to go on from.
//! Never: changes the database that is copied.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use uuid::Uuid;

use super::{StateError, database, loaded, reign, schema, stored};

/// Added to the epoch, to the next task and to open tasks' attempts when a copy takes over: whatever the lost manager
/// did after the copy was made is below it, so nothing of that is ever taken for the new manager's.
pub const TAKEOVER_GAP: u64 = 1 << 20;

/// Added to the next sector's number. Numbers end at 2^63 and gaps cost nothing, but people read them; more than a
/// thousand sectors are not pledged between two copies of one that follows.
pub const SECTOR_GAP: u64 = 1_000;

/// Attempts of one task that the lost manager may have begun after the copy: each takes at least a back-off.
const ATTEMPT_GAP: u64 = 1_000;

/// How far a copy reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// The epoch of the newest manager in it.
    pub epoch: u64,
    /// The sequence number of its last event; 0 = none.
    pub last_event: u64,
    /// The miner's actor id.
    pub actor: u64,
}

/// A database that copies are made of. It may be in use.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    connection: Connection,
}

impl Source {
    /// Opens it for reading.
    ///
    /// # Errors
    /// No database, one of another version, or SQLite's.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let connection = schema::open_unchanged(path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// A number that is another one after somebody has committed since it was last asked.
    ///
    /// # Errors
    /// SQLite's.
    pub fn data_version(&self) -> Result<i64, StateError> {
        let read = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        read.map_err(database("tell whether it changed"))
    }

    /// The sequence number of the last event that is committed; 0 = none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn last_event(&self) -> Result<u64, StateError> {
        facts(&self.connection).map(|facts| facts.last_event)
    }

    /// Writes what is committed now to a new file, whole, and says how far it reaches. The writer is not held up. The
    /// file is on stable storage when this returns; its directory's entry is the caller's.
    ///
    /// # Errors
    /// The file exists, or SQLite's; a half-written file may be left.
    pub fn copy_to(&self, target: &Path) -> Result<CopyFacts, StateError> {
        let name = target.to_str().ok_or_else(|| StateError::Corrupt {
            what: "path",
            detail: format!("{} is no UTF-8, which SQLite needs", target.display()),
        })?;
        self.connection.execute("VACUUM INTO ?1", [name]).map_err(database("be copied"))?;
        let copied = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(database("open its copy"))?;
        let facts = facts(&copied)?;
        let synced = std::fs::File::open(target).and_then(|file| file.sync_all());
        synced.map_err(|error| StateError::Corrupt {
            what: "copy",
            detail: format!("{} is not on the disk: {error}", target.display()),
        })?;
        tracing::debug!(from = %self.path.display(), to = %target.display(), ?facts, "the state was copied");
        Ok(facts)
    }
}

/// Makes a copy the database of a manager that takes over. Numbers that the lost manager may have given out since are
/// passed over, and `id`, a random one, tells it from every other manager that is made from the same copy. The whole copy is
/// checked first.
///
/// # Errors
/// A damaged copy, one of another version, or SQLite's.
pub fn take_over(path: &Path, id: Uuid) -> Result<CopyFacts, StateError> {
    let mut connection = schema::open(path)?;
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    if found != "ok" {
        return Err(StateError::Corrupt { what: "copy", detail: format!("{}: {found}", path.display()) });
    }
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(database("begin a take-over"))?;
    for (name, gap) in [("epoch", TAKEOVER_GAP), ("next_task", TAKEOVER_GAP), ("next_sector", SECTOR_GAP)] {
        let last = schema::counter(&transaction, name)?;
        let raised = last.checked_add(gap).ok_or_else(|| StateError::Corrupt {
            what: name,
            detail: format!("{last} leaves no room for a take-over"),
        })?;
        schema::raise_counter(&transaction, name, raised)?;
    }
    let others = transaction
        .execute("UPDATE added_miner SET next_sector = next_sector + ?1", [stored("gap", SECTOR_GAP)?])
        .map_err(database("pass over sector numbers"))?;
    tracing::debug!(others, "sector numbers of added miners are passed over, too");
    pass_over_attempts(&transaction)?;
    reign::take_over(&transaction, id)?;
    let facts = facts(&transaction)?;
    transaction.commit().map_err(database("commit a take-over"))?;
    // One file, so that it can be moved into place as a whole.
    connection.pragma_update(None, "journal_mode", "DELETE").map_err(database("leave WAL mode"))?;
    connection.close().map_err(|(_, source)| StateError::Database { action: "close", source })?;
    Ok(facts)
}

/// An attempt that ended stands for all that the lost manager may have made of each open task since.
fn pass_over_attempts(db: &Connection) -> Result<(), StateError> {
    let at_ms = stored("time", schema::counter(db, "last_ms")?)?;
    let sql = "INSERT INTO attempt
        (task, attempt, worker, name, url, peer, state, reason, bound_ms, started_ms, ended_ms, bytes_fetched)
        SELECT id, (SELECT coalesce(max(attempt), 0) FROM attempt WHERE task = id) + ?1, '', '', '', '', 'failed',
               'attempts up to this one may have been made after the backup that this manager began with',
               ?2, ?2, max(?2, 1), 0
        FROM task WHERE ended_ms = 0";
    let gap = stored("attempt", ATTEMPT_GAP)?;
    db.execute(sql, (gap, at_ms)).map_err(database("pass over attempts"))?;
    Ok(())
}

fn facts(db: &Connection) -> Result<CopyFacts, StateError> {
    let last = db.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0));
    let actor = db.query_row("SELECT actor FROM miner", [], |row| row.get(0));
    Ok(CopyFacts {
        epoch: schema::counter(db, "epoch")?,
        last_event: loaded("event", last.map_err(database("tell its last event"))?)?,
        actor: loaded("actor", actor.map_err(database("tell its miner"))?)?,
    })
}
