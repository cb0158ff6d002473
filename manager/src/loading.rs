//! What a starting manager reads of its durable state besides the small things: its sectors and open tasks, while the
//! index remembers and the storage paths are opened. Never: decides what becomes of them (see `driver`).

use pipeline::SectorRecord;
use sealtasks::SectorId;

use crate::driver::REMOVED;
use crate::state::{OpenTask, RawSector, State, StateError};

/// Read, and understood.
pub(crate) struct Loaded {
    /// Lowest number first.
    pub(crate) sectors: Vec<LoadedSector>,
    /// Oldest first.
    pub(crate) tasks: Vec<OpenTask>,
}

/// One sector.
pub(crate) struct LoadedSector {
    pub(crate) id: SectorId,
    /// An operator removed it; only its record is left.
    pub(crate) is_removed: bool,
    pub(crate) record: Box<SectorRecord>,
    pub(crate) priority: i64,
}

/// Reads it. It goes on whether it is waited for or not.
pub(crate) async fn load(state: State) -> Result<Loaded, StateError> {
    let (sectors, tasks) = tokio::try_join!(state.sectors_as(understood), state.open_tasks())?;
    Ok(Loaded { sectors, tasks })
}

fn understood(row: RawSector) -> Result<LoadedSector, StateError> {
    let id = row.sector.id;
    let record = serde_json::from_str(&row.record)
        .map_err(|source| StateError::Corrupt { what: "sector record", detail: format!("{id}: {source}") })?;
    let is_removed = row.state == REMOVED;
    Ok(LoadedSector { id, is_removed, record: Box::new(record), priority: row.priority })
}
