//! Room for what tasks make: promised before they write, per file and with what lies there already subtracted, and given
//! back when the task lets go of it. Durable promises are the manager's; these end with the process.

use std::collections::BTreeMap;

use sealtasks::{FileType, FileTypes, SectorRef, SpaceTable, StorageId};

use super::Local;
use crate::error::StoreError;
use crate::space::Promise;

/// Room promised for files of one sector; dropping it gives the room back.
#[must_use = "the room is given back when the reservation is dropped"]
pub struct Reservation {
    _promises: Vec<Promise>,
}

impl Local {
    /// Promises room for files of one sector, on all paths together or not at all. What lies on disk already is
    /// subtracted.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] naming each type's need, and [`StoreError::NotOpen`] for a type without an open path.
    pub async fn reserve(
        &self,
        sector: SectorRef,
        types: FileTypes,
        ids: &BTreeMap<FileType, StorageId>,
        table: SpaceTable,
    ) -> Result<Reservation, StoreError> {
        let mut wanted: BTreeMap<&StorageId, Vec<_>> = BTreeMap::new();
        for kind in types.iter() {
            let id = ids.get(&kind).ok_or(StoreError::NotFound { sector: sector.id, kind })?;
            let bytes = table.bytes(kind.into(), sector.proof.sector_size());
            wanted.entry(id).or_default().push(((sector.id, kind), bytes));
        }
        let mut promises = Vec::new();
        for (id, files) in wanted {
            // A failure drops the promises made so far.
            promises.push(self.path(id)?.space.promise(&files).await?);
        }
        Ok(Reservation { _promises: promises })
    }

    /// Promises room for unsealing: the unsealed file, as far as its data are not there, and the labels, which lie beside it
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Local::reserve`].
    pub async fn reserve_unsealing(
        &self,
        sector: SectorRef,
        id: &StorageId,
        multicore: bool,
    ) -> Result<Reservation, StoreError> {
        let (kind, size) = (FileType::Unsealed, sector.proof.sector_size());
        let data = SpaceTable::Sealing.bytes(kind.into(), size);
        let bytes = data.saturating_add(size.unsealing_labels(multicore));
        let promise = self.path(id)?.space.promise(&[((sector.id, kind), bytes)]).await?;
        Ok(Reservation { _promises: vec![promise] })
    }
}
