//! From whom this manager descends, and who has taken over from it. Never: what follows from that.

use rusqlite::{Connection, OptionalExtension as _};
use sealtasks::Reign;
use uuid::Uuid;

use super::{State, StateError, StateEvent, database, loaded};

impl State {
    /// The id of each take-over since `init`, oldest first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn takeovers(&self) -> Result<Vec<Uuid>, StateError> {
        self.read(takeovers).await
    }

    /// Who has taken over from this manager, and since when that is known in Unix milliseconds.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn overtaken(&self) -> Result<Option<(Reign, u64)>, StateError> {
        self.read(|db| {
            let row = db.query_row("SELECT reign, since_ms FROM overtaken", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            });
            let Some((line, since_ms)) = row.optional().map_err(database("tell who has taken over"))? else {
                return Ok(None);
            };
            let reign = line.parse().map_err(|_| StateError::Corrupt { what: "reign", detail: line })?;
            Ok(Some((reign, loaded("time", since_ms)?)))
        })
        .await
    }
}

fn takeovers(db: &Connection) -> Result<Vec<Uuid>, StateError> {
    let read = || {
        let mut statement = db.prepare("SELECT id FROM takeover ORDER BY nth")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let ids = read().map_err(database("tell its take-overs"))?.into_iter();
    let id = |text: String| {
        Uuid::try_parse(&text).map_err(|_| StateError::Corrupt { what: "take-over", detail: text })
    };
    ids.map(id).collect()
}

/// Makes a copy another manager than the one that it is a copy of.
pub(super) fn take_over(db: &Connection, id: Uuid) -> Result<(), StateError> {
    let earlier = takeovers(db)?.len();
    if earlier >= Reign::TAKEOVERS_MAX {
        let detail =
            format!("{earlier} came before, and no more than {} are told apart", Reign::TAKEOVERS_MAX);
        return Err(StateError::Corrupt { what: "take-over", detail });
    }
    db.execute("INSERT INTO takeover (id) VALUES (?1)", [id.to_string()])
        .and_then(|_| db.execute("DELETE FROM overtaken", []))
        .map(drop)
        .map_err(database("note the take-over"))
}

/// Keeps who has taken over.
pub(super) fn store(db: &Connection, now: i64, event: &StateEvent) -> Result<(), StateError> {
    let StateEvent::Overtaken { by } = event else { return Ok(()) };
    db.execute(
        "INSERT OR IGNORE INTO overtaken (only_row, reign, since_ms) VALUES (0, ?1, ?2)",
        (by.to_line(), now),
    )
    .map(drop)
    .map_err(database("note who has taken over"))
}
