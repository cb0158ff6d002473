//! What workers were measured at: how long tasks took and how fast files came, kept by the worker's name so that it
//! outlives sessions and restarts. Estimates begin with these. Never: an estimate for what was not measured.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use sealtasks::{RegisteredSealProof, TaskType};

use super::query::{all, column, task_type};
use super::{State, StateError, StateEvent, database, loaded, stored};

/// A mean follows its samples as if it were made of the last so many: a machine that was changed is known after a few.
const WINDOW: u64 = 8;

/// Milliseconds of fetching that a throughput remembers in full: an hour. What is older counts half.
const FETCHING_KEPT_MS: u64 = 3_600_000;

/// Rows read at the start, the latest first: a thousand workers with all types of a size.
const ROWS_MAX: i64 = 20_000;

/// How long one kind of task took on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duration {
    /// Tasks measured.
    pub count: u64,
    /// Moving mean, in milliseconds.
    pub mean_ms: u64,
    /// The latest, in milliseconds.
    pub last_ms: u64,
    /// The most memory that any had at a time, in bytes; 0 = not measured.
    pub peak_bytes: u64,
    /// The latest one's processor time, in milliseconds; 0 = not measured.
    pub cpu_ms: u64,
}

/// How fast files came to one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throughput {
    /// Bytes received.
    pub bytes: u64,
    /// Milliseconds spent receiving them; those of fetches side by side add up, so that the quotient is what one fetch
    /// gets.
    pub millis: u64,
}

/// What one worker was measured at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// By type and proof, hence size.
    pub durations: BTreeMap<(TaskType, RegisteredSealProof), Duration>,
    /// Of its fetches.
    pub throughput: Throughput,
}

/// By the workers' names.
pub type Measures = BTreeMap<String, Measured>;

impl Duration {
    fn with(self, sample_ms: u64) -> Self {
        // What is measured as nothing took less than the clock shows.
        let sample_ms = sample_ms.max(1);
        let count = self.count.saturating_add(1);
        let weight = count.min(WINDOW);
        let kept = u128::from(self.mean_ms) * u128::from(weight - 1) + u128::from(sample_ms);
        let mean_ms = u64::try_from(kept / u128::from(weight)).unwrap_or(u64::MAX).max(1);
        Self { count, mean_ms, last_ms: sample_ms, ..self }
    }

    /// What a sample took besides time, where that was measured.
    fn taking(self, peak_bytes: u64, cpu_ms: u64) -> Self {
        let cpu_ms = if cpu_ms > 0 { cpu_ms } else { self.cpu_ms };
        Self { peak_bytes: self.peak_bytes.max(peak_bytes), cpu_ms, ..self }
    }
}

impl Throughput {
    /// Bytes per second; 0 = not known.
    pub fn bytes_per_second(self) -> u64 {
        let rate = (u128::from(self.bytes) * 1000).checked_div(u128::from(self.millis)).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn with(self, bytes: u64, millis: u64) -> Self {
        let halved = |kept: u64| if self.millis > FETCHING_KEPT_MS { kept / 2 } else { kept };
        Self {
            bytes: halved(self.bytes).saturating_add(bytes),
            millis: halved(self.millis).saturating_add(millis.max(1)),
        }
    }
}

impl Measured {
    /// Takes the event, if it is a measurement. The rows and the manager's memory follow the same rule.
    pub fn take(&mut self, event: &StateEvent) {
        if let StateEvent::DurationMeasured { task_type, proof, millis, peak_bytes, cpu_ms, .. } = event {
            let known = self.durations.entry((*task_type, *proof)).or_default();
            *known = known.with(*millis).taking(*peak_bytes, *cpu_ms);
        }
        if let StateEvent::ThroughputMeasured { bytes, millis, .. } = event {
            self.throughput = self.throughput.with(*bytes, *millis);
        }
    }
}

impl State {
    /// Everything measured so far, of the workers measured last.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn measures(&self) -> Result<Measures, StateError> {
        self.read(|db| {
            let mut measures = Measures::new();
            let sql = "SELECT worker, count, mean_ms, last_ms, peak_bytes, cpu_ms, kind, proof FROM duration
                 ORDER BY at_ms DESC LIMIT ?1";
            let rows = all(db, sql, [ROWS_MAX], |row| {
                let worker: String = row.get(0).map_err(column)?;
                Ok((worker, (task_type(row, 6)?, proof(row, 7)?), duration(row)?))
            })?;
            for (worker, kind, duration) in rows {
                measures.entry(worker).or_default().durations.insert(kind, duration);
            }
            let sql = "SELECT worker, bytes, millis FROM throughput ORDER BY at_ms DESC LIMIT ?1";
            let rows = all(db, sql, [ROWS_MAX], |row| {
                let worker: String = row.get(0).map_err(column)?;
                Ok((worker, throughput(row)?))
            })?;
            for (worker, throughput) in rows {
                measures.entry(worker).or_default().throughput = throughput;
            }
            Ok(measures)
        })
        .await
    }
}

/// Adds one duration to its row.
pub(super) fn store_duration(
    db: &Connection,
    now: i64,
    worker: &str,
    kind: (TaskType, RegisteredSealProof),
    event: &StateEvent,
) -> Result<(), StateError> {
    let (task, proof) = (kind.0.name(), i64::from(kind.1));
    let sql = "SELECT worker, count, mean_ms, last_ms, peak_bytes, cpu_ms FROM duration
         WHERE worker = ?1 AND kind = ?2 AND proof = ?3";
    let known = all(db, sql, (worker, task, proof), duration)?.pop().unwrap_or_default();
    let mut measured = Measured { durations: BTreeMap::from([(kind, known)]), ..Measured::default() };
    measured.take(event);
    let Duration { count, mean_ms, last_ms, peak_bytes, cpu_ms } =
        measured.durations.remove(&kind).unwrap_or_default();
    let row = (stored("count", count)?, stored("duration", mean_ms)?, stored("duration", last_ms)?);
    let took = (stored("peak", peak_bytes)?, stored("duration", cpu_ms)?);
    db.prepare_cached(
        "INSERT INTO duration (worker, kind, proof, count, mean_ms, last_ms, at_ms, peak_bytes, cpu_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (worker, kind, proof)
         DO UPDATE SET count = ?4, mean_ms = ?5, last_ms = ?6, at_ms = ?7, peak_bytes = ?8, cpu_ms = ?9",
    )
    .and_then(|mut statement| {
        statement.execute((worker, task, proof, row.0, row.1, row.2, now, took.0, took.1))
    })
    .map_err(database("keep a duration"))?;
    Ok(())
}

/// Adds one fetch to its row.
pub(super) fn store_throughput(
    db: &Connection,
    now: i64,
    worker: &str,
    event: &StateEvent,
) -> Result<(), StateError> {
    let sql = "SELECT worker, bytes, millis FROM throughput WHERE worker = ?1";
    let known = all(db, sql, [worker], throughput)?.pop().unwrap_or_default();
    let mut measured = Measured { throughput: known, ..Measured::default() };
    measured.take(event);
    let Throughput { bytes, millis } = measured.throughput;
    let row = (stored("bytes", bytes)?, stored("duration", millis)?);
    db.prepare_cached(
        "INSERT INTO throughput (worker, bytes, millis, at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (worker) DO UPDATE SET bytes = ?2, millis = ?3, at_ms = ?4",
    )
    .and_then(|mut statement| statement.execute((worker, row.0, row.1, now)))
    .map_err(database("keep a throughput"))?;
    Ok(())
}

fn duration(row: &Row<'_>) -> Result<Duration, StateError> {
    let number = |index| loaded("duration", row.get(index).map_err(column)?);
    let (count, mean_ms, last_ms) = (number(1)?, number(2)?, number(3)?);
    Ok(Duration { count, mean_ms, last_ms, peak_bytes: number(4)?, cpu_ms: number(5)? })
}

fn throughput(row: &Row<'_>) -> Result<Throughput, StateError> {
    let number = |index| loaded("throughput", row.get(index).map_err(column)?);
    Ok(Throughput { bytes: number(1)?, millis: number(2)? })
}

fn proof(row: &Row<'_>, index: usize) -> Result<RegisteredSealProof, StateError> {
    let number: i64 = row.get(index).map_err(column)?;
    RegisteredSealProof::try_from(number)
        .map_err(|source| StateError::Corrupt { what: "seal proof", detail: source.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_exact_at_first_and_follows_a_changed_machine() {
        let mut duration = Duration::default();
        for sample in [10_000, 20_000, 30_000] {
            duration = duration.with(sample);
        }
        assert_eq!(duration, Duration { count: 3, mean_ms: 20_000, last_ms: 30_000, ..Duration::default() });
        for _ in 0..40 {
            duration = duration.with(5_000);
        }
        assert!((5_000..5_200).contains(&duration.mean_ms), "{duration:?}");
        assert_eq!(Duration::default().with(0).mean_ms, 1);
        let long = Duration { mean_ms: u64::MAX, count: 9, last_ms: 1, ..Duration::default() };
        assert_eq!(long.with(u64::MAX).mean_ms, u64::MAX);
    }

    #[test]
    fn throughput_is_bytes_over_time_and_forgets() {
        assert_eq!(Throughput::default().bytes_per_second(), 0);
        let slow = (0..9).fold(Throughput::default(), |known, _| known.with(1_000_000, 1_000_000));
        assert_eq!(slow.bytes_per_second(), 1_000);
        let fast = (0..9).fold(slow, |known, _| known.with(1_000_000_000, 1_000_000));
        assert!(fast.bytes_per_second() > 900_000, "{fast:?}");
        assert_eq!(Throughput { bytes: u64::MAX, millis: 1 }.bytes_per_second(), u64::MAX);
    }
}
