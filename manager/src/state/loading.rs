//! Reading all sectors when a manager starts: there may be millions, and understanding a record takes longer than reading
//! it. Never: what a record means; whoever asks says how one is read.

use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};
use sealtasks::SectorRef;

use super::query::{column, sector_ref};
use super::{State, StateError, database, schema};

/// Sector numbers that are one span's: fewer are not worth a division.
const SPAN: i64 = 1024;
/// Spans, at most, unless there are more miners: numbers may lie far apart.
const SPANS_MAX: usize = 4096;

/// A sector's row as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSector<'row> {
    /// Which, and how it is sealed.
    pub sector: SectorRef,
    /// Its state's name.
    pub state: &'row str,
    /// The pipeline's record, in JSON.
    pub record: &'row str,
    /// The priority of its tasks.
    pub priority: i64,
}

/// How a row is read.
type Each<T> = fn(RawSector<'_>) -> Result<T, StateError>;

impl State {
    /// All sectors, lowest number first, each made of its row by one of several threads. Other readers are not held up, and
    /// nobody may write meanwhile (see [`State::unchanged_while`]): each thread reads for itself.
    ///
    /// # Errors
    /// SQLite's, a damaged row, or one of `each`.
    pub async fn sectors_as<T: Send + 'static>(&self, each: Each<T>) -> Result<Vec<T>, StateError> {
        let path = self.path.clone();
        let read = move || made_of_all(&path, each);
        tokio::task::spawn_blocking(read).await.map_err(|_| StateError::Closed)?
    }

    /// What several connections or queries have read is one state only if nobody has written meanwhile.
    ///
    /// # Errors
    /// Those of `read`, SQLite's, or that an event came meanwhile.
    pub async fn unchanged_while<T>(
        &self,
        read: impl Future<Output = Result<T, StateError>>,
    ) -> Result<T, StateError> {
        let newest = || {
            self.read(|db| {
                let sql = "SELECT coalesce(max(seq), 0) FROM event";
                db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(database("tell its newest event"))
            })
        };
        let before = newest().await?;
        let found = read.await?;
        let after = newest().await?;
        if after == before {
            return Ok(found);
        }
        let detail = format!(
            "event {after} came while the sectors and tasks were read, after event {before}; stop whoever else writes this \
             database, then start again"
        );
        Err(StateError::Corrupt { what: "state to start from", detail })
    }
}

fn made_of_all<T: Send>(path: &Path, each: Each<T>) -> Result<Vec<T>, StateError> {
    let spans = spans(&schema::open_unchanged(path)?)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(spans.len());
    let taken = AtomicUsize::new(0);
    let some = || make(path, &spans, &taken, each);
    let mut chunks = std::thread::scope(|scope| {
        // This one makes, too; where no other can be had, all of them.
        let other =
            |_| std::thread::Builder::new().name("state-load".to_owned()).spawn_scoped(scope, some).ok();
        let makers: Vec<_> = (1..threads).map_while(other).collect();
        let mut chunks = some()?;
        for maker in makers {
            chunks.extend(maker.join().map_err(|_| StateError::Closed)??);
        }
        Ok::<_, StateError>(chunks)
    })?;
    chunks.sort_by_key(|(place, _)| *place);
    let mut all = Vec::with_capacity(chunks.iter().map(|(_, made)| made.len()).sum());
    chunks.into_iter().for_each(|(_, made)| all.extend(made));
    Ok(all)
}

/// A miner, and its sectors' numbers from the one to the other.
type Span = (i64, i64, i64);

/// All sectors lie in one of them, in their order. The widest is divided first, and what lies between two sectors is in
/// none: that few numbers lie far from all others costs no more than a few divisions.
fn spans(db: &Connection) -> Result<Vec<Span>, StateError> {
    let number = |sql: &str, bounds: &[i64]| -> Result<Option<i64>, StateError> {
        let found = db.prepare_cached(sql).and_then(|mut statement| {
            statement.query_row(params_from_iter(bounds), |row| row.get(0)).optional()
        });
        found.map_err(database("find its sectors"))
    };
    let next_miner = "SELECT miner FROM sector WHERE miner >= ?1 ORDER BY miner LIMIT 1";
    let lowest = "SELECT number FROM sector WHERE miner = ?1 AND number >= ?2 ORDER BY number LIMIT 1";
    let highest = "SELECT number FROM sector WHERE miner = ?1 AND number <= ?2 ORDER BY number DESC LIMIT 1";
    let width = |(_, first, last): Span| last.saturating_sub(first);
    // From the least there is: a row with a number that none has is refused by whoever reads it, not passed over.
    let (mut widest, mut from) = (BinaryHeap::new(), Some(i64::MIN));
    while let Some(miner) = from.map(|from| number(next_miner, &[from])).transpose()?.flatten() {
        from = miner.checked_add(1);
        if let (Some(first), Some(last)) =
            (number(lowest, &[miner, i64::MIN])?, number(highest, &[miner, i64::MAX])?)
        {
            let whole = (miner, first, last);
            widest.push((width(whole), whole));
        }
    }
    while widest.len() < SPANS_MAX
        && widest.peek().is_some_and(|(width, _)| *width >= SPAN)
        && let Some((_, (miner, first, last))) = widest.pop()
    {
        // Below the last, for it is that far from the first.
        let (before, after) = (first.midpoint(last), first.midpoint(last).saturating_add(1));
        let end = number(highest, &[miner, before])?.unwrap_or(before);
        let begin = number(lowest, &[miner, after])?.unwrap_or(after);
        widest.extend([(miner, first, end), (miner, begin, last)].map(|half| (width(half), half)));
    }
    let mut spans: Vec<_> = widest.into_iter().map(|(_, span)| span).collect();
    spans.sort_unstable();
    Ok(spans)
}

/// What was made of some spans, each with its place in the whole.
type Chunks<T> = Vec<(usize, Vec<T>)>;

/// Makes of spans that nobody has taken what is to be made of them, until there are no more.
fn make<T>(path: &Path, spans: &[Span], taken: &AtomicUsize, each: Each<T>) -> Result<Chunks<T>, StateError> {
    let db = schema::open_unchanged(path)?;
    let mut statement = db
        .prepare(
            "SELECT miner, number, proof, state, record, priority FROM sector
             WHERE miner = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number",
        )
        .map_err(database("prepare a query"))?;
    let mut made = Chunks::new();
    loop {
        let place = taken.fetch_add(1, Ordering::Relaxed);
        let Some(span) = spans.get(place) else { return Ok(made) };
        let mut chunk = Vec::new();
        let mut rows = statement.query(*span).map_err(database("run a query"))?;
        while let Some(row) = rows.next().map_err(database("read a row"))? {
            chunk.push(each(raw(row)?)?);
        }
        made.push((place, chunk));
    }
}

fn raw<'row>(row: &'row Row<'_>) -> Result<RawSector<'row>, StateError> {
    Ok(RawSector {
        sector: sector_ref(row, 0)?,
        state: text(row, 3)?,
        record: text(row, 4)?,
        priority: row.get(5).map_err(column)?,
    })
}

fn text<'row>(row: &'row Row<'_>, index: usize) -> Result<&'row str, StateError> {
    let value = row.get_ref(index).map_err(column)?;
    value.as_str().map_err(|source| StateError::Corrupt { what: "sector row", detail: source.to_string() })
}

#[cfg(test)]
mod tests {
    use sealtasks::{ActorId, SectorSize};

    use super::*;
    use crate::state::{MinerIdentity, StateEvent};

    fn database(numbers: impl IntoIterator<Item = i64>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let (actor, sector_size) = (ActorId::new(1000), SectorSize::KiB2);
        schema::create(&path, &MinerIdentity { actor, sector_size, beacon: [7; 32], chain: None })
            .expect("a new database");
        let mut db = schema::open(&path).expect("a connection");
        let entering = db.transaction().expect("a transaction");
        for number in numbers {
            let sql = "INSERT INTO sector (miner, number, proof, state, record, changed_ms)
                       VALUES (1000, ?1, 5, 'Packing', '{}', 0)";
            entering.execute(sql, [number]).expect("a sector");
        }
        entering.commit().expect("they are there");
        (dir, path)
    }

    /// So that no thread has nearly all of them to itself.
    #[test]
    fn one_number_far_from_all_others_leaves_those_divided() {
        let (_dir, path) = database((0..5_000).chain([1 << 62]));
        let spans = spans(&schema::open_unchanged(&path).expect("a connection")).expect("spans");
        assert!(spans.iter().all(|(_, first, last)| last - first < SPAN), "{spans:?}");
        assert!(spans.len() <= 2 * 5_000 / 1_024 + 2, "{spans:?}");
        assert!(spans.is_sorted(), "{spans:?}");
        assert_eq!(spans.last(), Some(&(1000, 1 << 62, 1 << 62)));
    }

    #[test]
    fn many_numbers_far_from_each_other_make_no_more_spans_than_there_may_be() {
        let far = (0..5_000).map(|number| number << 40);
        let (_dir, path) = database(far.clone());
        let spans = spans(&schema::open_unchanged(&path).expect("a connection")).expect("spans");
        assert_eq!(spans.len(), SPANS_MAX);
        let lies =
            |number| spans.iter().filter(|(_, first, last)| (*first..=*last).contains(&number)).count();
        assert!(far.into_iter().all(|number| lies(number) == 1), "each in one");
    }

    /// Sectors that nobody knows of would be forgotten, files and all.
    #[tokio::test]
    async fn a_sector_whose_number_cannot_be_is_refused_and_not_passed_over() {
        for number in [-5, i64::MIN] {
            let (_dir, path) = database([1, number, i64::MAX]);
            let state = State::open(&path).expect("a manager");
            let error = state.sectors_as(|_| Ok(())).await.expect_err("a damaged row").to_string();
            assert!(error.contains(&number.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_read_while_somebody_writes_is_not_taken_for_one_state() {
        let (_dir, path) = database([1]);
        let state = State::open(&path).expect("a manager");
        let read = || async { state.sectors_as(|row| Ok(row.sector.id)).await };
        assert_eq!(state.unchanged_while(read()).await.expect("nobody writes").len(), 1);
        let beside = async {
            let found = read().await?;
            state.commit(vec![StateEvent::ManagerStarted { software: "another".to_owned() }]).await?;
            Ok(found)
        };
        let error = state.unchanged_while(beside).await.expect_err("somebody writes");
        assert!(error.to_string().contains("event 1 came"), "{error}");
    }
}
