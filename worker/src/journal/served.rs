//! Whose calls are journalled: the manager that is served, by its token and, where it says so, by its reign. Never: decides
//! which manager may be served.

use rusqlite::{Connection, OptionalExtension as _};
use sealtasks::Reign;

use super::schema::SERVED;
use super::{Journal, JournalError, unreadable};

impl Journal {
    /// Says whose calls are journalled from now on: `token` is the one that this worker shows to its manager.
    ///
    /// Attempts are numbered by each manager for itself. Under another manager an attempt of the same number is another
    /// one, so what is here loses its number: results that wait are still offered, but match no attempt by chance, and
    /// no start is answered with an old call. A new token of the same manager does this too; at worst a call of which
    /// that manager never heard is then run once more.
    pub fn serves(&self, token: &str) -> Result<(), JournalError> {
        let manager = blake3::derive_key("sealyard worker journal: the manager's token", token.as_bytes());
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute_batch("CREATE TABLE IF NOT EXISTS manager (token BLOB NOT NULL) STRICT")?;
            let known: Option<Vec<u8>> =
                transaction.query_row("SELECT token FROM manager", [], |row| row.get(0)).optional()?;
            if known.as_deref() == Some(manager.as_slice()) {
                return Ok(());
            }
            if known.is_some() {
                forget_attempts(&transaction)?;
            }
            transaction.execute("DELETE FROM manager", [])?;
            transaction.execute("INSERT INTO manager (token) VALUES (?1)", [manager.as_slice()])?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// The manager that was served last: of several that took over from one another the last one.
    pub fn served(&self) -> Result<Option<Reign>, JournalError> {
        self.with(|db| {
            db.execute_batch(SERVED)?;
            let line: Option<String> =
                db.query_row("SELECT reign FROM served", [], |row| row.get(0)).optional()?;
            line.map(|line| line.parse().map_err(|_| unreadable("reign", &line))).transpose()
        })
    }

    /// From now on this one is.
    pub fn serve(&self, reign: &Reign) -> Result<(), JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute_batch(SERVED)?;
            transaction.execute("DELETE FROM served", [])?;
            transaction.execute("INSERT INTO served (reign) VALUES (?1)", [reign.to_line()])?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// The manager that was served last is served no longer, and what it ordered is no attempt of the next one.
    pub fn leave(&self) -> Result<(), JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute_batch(SERVED)?;
            transaction.execute("DELETE FROM served", [])?;
            forget_attempts(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
    }
}

/// Results that wait are still offered, but match no attempt by chance.
fn forget_attempts(db: &Connection) -> Result<(), JournalError> {
    db.execute("DELETE FROM call WHERE phase = 'acknowledged'", [])?;
    db.execute("UPDATE call SET attempt = NULL, digest = NULL", [])?;
    Ok(())
}
