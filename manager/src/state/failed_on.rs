//! On which worker a sector's task failed last, by the attempts. Never: decides what follows from it.

use rusqlite::{Connection, Row};
use sealtasks::{SectorId, TaskType, WorkerId};

use super::query::{all, column, task_type};
use super::{State, StateError, stored};

/// A task of a sector, and the session of a worker.
type FailedOn = ((SectorId, TaskType), WorkerId);

impl State {
    /// The last failed attempt of each of these sectors: of which task, and on which worker.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn failed_on(&self, sectors: Vec<SectorId>) -> Result<Vec<FailedOn>, StateError> {
        self.read(move |db| {
            let found = sectors.into_iter().map(|sector| last(db, sector));
            Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        })
        .await
    }
}

fn last(db: &Connection, sector: SectorId) -> Result<Option<FailedOn>, StateError> {
    const SQL: &str = "SELECT t.kind, a.worker FROM task t JOIN attempt a ON a.task = t.id
                       WHERE t.miner = ?1 AND t.number = ?2 AND a.state = 'failed'
                       ORDER BY t.id DESC, a.attempt DESC LIMIT 1";
    let key = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
    let mut rows = all(db, SQL, key, |row: &Row<'_>| {
        let worker: String = row.get(1).map_err(column)?;
        // None: it failed before a worker had it.
        Ok((task_type(row, 0)?, worker.parse().ok().map(WorkerId)))
    })?;
    Ok(rows.pop().and_then(|(kind, worker)| Some(((sector, kind), worker?))))
}
