//! What scrubbing last found of each file. Never: what follows from it.

use rpc::storage::ScrubResult;
use rusqlite::{Connection, Row};
use sealtasks::{ScrubVerdict, SectorId};

use super::query::{all, column};
use super::{State, StateError, StateEvent, database, loaded, stored};

impl State {
    /// The last verdict on each file that was ever scrubbed, by sector; of one sector, or of all.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn scrubs(&self, sector: Option<SectorId>) -> Result<Vec<ScrubResult>, StateError> {
        const COLUMNS: &str = "SELECT miner, number, file, path, host, at_ms, verdict, detail FROM scrub";
        self.read(move |db| match sector {
            None => all(db, &format!("{COLUMNS} ORDER BY miner, number, file, path"), [], row),
            Some(sector) => {
                let key = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
                let sql = format!("{COLUMNS} WHERE miner = ?1 AND number = ?2 ORDER BY file, path");
                all(db, &sql, key, row)
            }
        })
        .await
    }
}

fn row(row: &Row<'_>) -> Result<ScrubResult, StateError> {
    let bad = |what: &'static str, text: &str| StateError::Corrupt { what, detail: text.to_owned() };
    let text = |at: usize| row.get::<_, String>(at).map_err(column);
    let (file, path, verdict) = (text(2)?, text(3)?, text(6)?);
    Ok(ScrubResult {
        sector: SectorId::new(
            loaded("miner", row.get(0).map_err(column)?)?,
            loaded("sector number", row.get(1).map_err(column)?)?,
        ),
        file: file.parse().map_err(|_| bad("file type", &file))?,
        path: path.parse().map_err(|_| bad("storage path id", &path))?,
        host: text(4)?,
        at_ms: loaded("time", row.get(5).map_err(column)?)?,
        verdict: ScrubVerdict::from_words(&verdict).ok_or_else(|| bad("verdict", &verdict))?,
        detail: text(7)?,
    })
}

/// Keeps a verdict in place of the one before.
pub(super) fn store(db: &Connection, now: i64, event: &StateEvent) -> Result<(), StateError> {
    let StateEvent::FileScrubbed { sector, file, path, host, verdict, detail } = event else { return Ok(()) };
    let (miner, number) = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
    let row = (miner, number, file.name(), path.as_str(), host, now, verdict.words(), detail);
    db.prepare_cached(
        "INSERT INTO scrub (miner, number, file, path, host, at_ms, verdict, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (miner, number, file, path)
         DO UPDATE SET host = ?5, at_ms = ?6, verdict = ?7, detail = ?8",
    )
    .and_then(|mut statement| statement.execute(row))
    .map_err(database("keep a verdict"))?;
    Ok(())
}
