//! Reading all sectors when a manager starts: there may be millions, and understanding a record takes longer than reading
//! it. Never: what a record means; whoever asks says how one is read.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use rusqlite::{Connection, Row};
use sealtasks::SectorRef;

use super::query::{column, sector_ref};
use super::{State, StateError, database, schema};

/// Rows handed over together.
const CHUNK: usize = 512;
/// Chunks that wait to be understood.
const CHUNKS_MAX: usize = 16;

/// A sector's row as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSector {
    /// Which, and how it is sealed.
    pub sector: SectorRef,
    /// Its state's name.
    pub state: String,
    /// The pipeline's record, in JSON.
    pub record: String,
    /// The priority of its tasks.
    pub priority: i64,
}

impl State {
    /// All sectors, lowest number first, each made of its row by one of several threads. Other readers are not held up.
    ///
    /// # Errors
    /// SQLite's, a damaged row, or one of `each`.
    pub async fn sectors_as<T: Send + 'static>(
        &self,
        each: fn(RawSector) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let path = self.path.clone();
        let read = move || made_of_all(&schema::open_unchanged(&path)?, each);
        tokio::task::spawn_blocking(read).await.map_err(|_| StateError::Closed)?
    }
}

/// Chunks with their place in the whole.
type Chunks<T> = Vec<(usize, Vec<T>)>;

fn made_of_all<T: Send>(
    db: &Connection,
    each: fn(RawSector) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (give, take) = sync_channel(CHUNKS_MAX);
    let take = Mutex::new(take);
    let mut chunks = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..threads).map(|_| scope.spawn(|| make(&take, each))).collect();
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut given = 0;
        let read = each_sector(db, |row| {
            chunk.push(row);
            if chunk.len() == CHUNK {
                // Nobody takes it when all have failed, and then they say why.
                let _ = give.send((given, std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))));
                given += 1;
            }
        });
        let _ = give.send((given, chunk));
        drop(give);
        let mut chunks = Chunks::new();
        for maker in makers {
            chunks.extend(maker.join().map_err(|_| StateError::Closed)??);
        }
        read.map(|()| chunks)
    })?;
    chunks.sort_by_key(|(place, _)| *place);
    Ok(chunks.into_iter().flat_map(|(_, made)| made).collect())
}

/// Makes of chunks what is to be made of them, until there are no more. One that fails takes the others all the same, so
/// that whoever gives them never waits.
fn make<T>(
    take: &Mutex<Receiver<(usize, Vec<RawSector>)>>,
    each: fn(RawSector) -> Result<T, StateError>,
) -> Result<Chunks<T>, StateError> {
    let mut made = Ok(Chunks::new());
    loop {
        let next = take.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok((place, rows)) = next else { return made };
        let Ok(all) = &mut made else { continue };
        match rows.into_iter().map(each).collect() {
            Ok(chunk) => all.push((place, chunk)),
            Err(error) => made = Err(error),
        }
    }
}

fn each_sector(db: &Connection, mut take: impl FnMut(RawSector)) -> Result<(), StateError> {
    let mut statement = db
        .prepare("SELECT miner, number, proof, state, record, priority FROM sector ORDER BY miner, number")
        .map_err(database("prepare a query"))?;
    let mut rows = statement.query([]).map_err(database("run a query"))?;
    while let Some(row) = rows.next().map_err(database("read a row"))? {
        take(raw(row)?);
    }
    Ok(())
}

fn raw(row: &Row<'_>) -> Result<RawSector, StateError> {
    Ok(RawSector {
        sector: sector_ref(row, 0)?,
        state: row.get(3).map_err(column)?,
        record: row.get(4).map_err(column)?,
        priority: row.get(5).map_err(column)?,
    })
}
