//! Copies of files that are older than what a later attempt has made of them elsewhere: the index lists none of them beside
//! the newer one, also after a restart. Never: decides which they are.

use rusqlite::{Connection, Row};
use sealtasks::{FileType, SectorId, StorageId};

use super::query::{all, column};
use super::{State, StateError, StateEvent, database, loaded, stored};

/// One older copy: of which sector, which file, on which path.
pub type OldCopy = (SectorId, FileType, StorageId);

impl State {
    /// All older copies, by sector.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn superseded(&self) -> Result<Vec<OldCopy>, StateError> {
        const SQL: &str =
            "SELECT miner, number, file, path FROM superseded ORDER BY miner, number, file, path";
        self.read(|db| all(db, SQL, [], row)).await
    }
}

fn row(row: &Row<'_>) -> Result<OldCopy, StateError> {
    let bad = |what: &'static str, text: &str| StateError::Corrupt { what, detail: text.to_owned() };
    let (miner, number) = (row.get(0).map_err(column)?, row.get(1).map_err(column)?);
    let (file, path): (String, String) = (row.get(2).map_err(column)?, row.get(3).map_err(column)?);
    let sector = SectorId::new(loaded("miner", miner)?, loaded("sector number", number)?);
    let file = file.parse().map_err(|_| bad("file type", &file))?;
    Ok((sector, file, path.parse().map_err(|_| bad("storage path id", &path))?))
}

/// Keeps or forgets an older copy.
pub(super) fn store(db: &Connection, now: i64, event: &StateEvent) -> Result<(), StateError> {
    let (sector, file, path, old) = match event {
        StateEvent::CopySuperseded { sector, file, path } => (sector, file, path, true),
        StateEvent::CopyCounts { sector, file, path } => (sector, file, path, false),
        _ => return Ok(()),
    };
    let (miner, number) = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
    let changed = if old {
        db.prepare_cached(
            "INSERT INTO superseded (miner, number, file, path, since_ms) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (miner, number, file, path) DO UPDATE SET since_ms = ?5",
        )
        .and_then(|mut statement| statement.execute((miner, number, file.name(), path.as_str(), now)))
    } else {
        db.prepare_cached(
            "DELETE FROM superseded WHERE miner = ?1 AND number = ?2 AND file = ?3 AND path = ?4",
        )
        .and_then(|mut statement| statement.execute((miner, number, file.name(), path.as_str())))
    };
    changed.map(drop).map_err(database("keep which copies are old"))
}
