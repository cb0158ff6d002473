//! What a starting manager reads of its durable state besides the small things: its sectors and open tasks, while the
//! index remembers and the storage paths are opened. Never: decides what becomes of them (see `driver`).

use pipeline::{SectorRecord, Step};
use sealtasks::{SectorId, TaskInput};

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
    /// The work that it waits for. Made here, where several threads read, and where the record is at hand.
    pub(crate) wanted: Option<Box<TaskInput>>,
    pub(crate) priority: i64,
}

/// Reads it. It goes on whether it is waited for or not.
pub(crate) async fn load(state: State) -> Result<Loaded, StateError> {
    let both = async { tokio::try_join!(state.sectors_as(understood), state.open_tasks()) };
    let (sectors, tasks) = state.unchanged_while(both).await?;
    Ok(Loaded { sectors, tasks })
}

fn understood(row: RawSector<'_>) -> Result<LoadedSector, StateError> {
    let id = row.sector.id;
    let record: SectorRecord = serde_json::from_str(row.record)
        .map_err(|source| StateError::Corrupt { what: "sector record", detail: format!("{id}: {source}") })?;
    let is_removed = row.state == REMOVED;
    let wanted = match record.next() {
        Step::Run(work) if !is_removed => Some(Box::new(work)),
        _ => None,
    };
    Ok(LoadedSector { id, is_removed, record: Box::new(record), wanted, priority: row.priority })
}
