//! Sectors that are being moved by an operator: with which nothing else is begun, also after a restart. Never: what
//! follows from it.

use rusqlite::{Connection, Row};
use sealtasks::{FileTypes, SectorId, StorageId};

use super::query::{all, column};
use super::{State, StateError, StateEvent, database, loaded, stored};

/// One sector that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which.
    pub sector: SectorId,
    /// The files that are being moved; none = all.
    pub types: FileTypes,
    /// The path that they go to.
    pub to: StorageId,
}

impl State {
    /// The sectors that are held, by number.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn holds(&self) -> Result<Vec<Hold>, StateError> {
        self.read(|db| all(db, "SELECT miner, number, types, path FROM hold ORDER BY miner, number", [], row))
            .await
    }
}

fn row(row: &Row<'_>) -> Result<Hold, StateError> {
    let bad = |what: &'static str, text: String| StateError::Corrupt { what, detail: text };
    let (miner, number) = (row.get(0).map_err(column)?, row.get(1).map_err(column)?);
    let (types, path): (i64, String) = (row.get(2).map_err(column)?, row.get(3).map_err(column)?);
    Ok(Hold {
        sector: SectorId::new(loaded("miner", miner)?, loaded("sector number", number)?),
        types: types.try_into().map_err(|_| bad("file types", types.to_string()))?,
        to: path.parse().map_err(|_| bad("storage path id", path.clone()))?,
    })
}

/// Keeps or forgets a hold.
pub(super) fn store(db: &Connection, now: i64, event: &StateEvent) -> Result<(), StateError> {
    let changed = match event {
        StateEvent::SectorHeld { sector, types, to } => {
            let (miner, number) = key(*sector)?;
            let mut insert = db
                .prepare_cached(
                    "INSERT INTO hold (miner, number, types, path, since_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .map_err(database("hold a sector"))?;
            insert.execute((miner, number, i64::from(*types), to.as_str(), now))
        }
        StateEvent::SectorLetGo { sector, .. } => {
            let mut delete = db
                .prepare_cached("DELETE FROM hold WHERE miner = ?1 AND number = ?2")
                .map_err(database("let a sector go"))?;
            delete.execute(key(*sector)?)
        }
        _ => Ok(0),
    };
    match changed.map_err(database("keep a hold"))? {
        1 => Ok(()),
        rows => {
            let detail = format!("{rows} rows match instead of one");
            Err(StateError::Inapplicable { kind: event.kind(), detail })
        }
    }
}

fn key(sector: SectorId) -> Result<(i64, i64), StateError> {
    Ok((stored("miner", sector.miner.get())?, stored("number", sector.number.get())?))
}
