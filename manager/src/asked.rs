//! Sectors for which something is being asked outside the driver: a ticket, a seed, a verification, a deletion. Never: what the
//! answer is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtasks::SectorId;

/// Clones share what is asked.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<BTreeMap<SectorId, usize>>>);

/// Somebody asks, until this is dropped.
pub(crate) struct Asking {
    asked: Asked,
    sector: SectorId,
}

impl Asked {
    /// Something is asked for a sector from now on.
    pub(crate) fn begin(&self, sector: SectorId) -> Asking {
        *self.lock().entry(sector).or_default() += 1;
        Asking { asked: self.clone(), sector }
    }

    /// Whether anything is.
    pub(crate) fn contains(&self, sector: SectorId) -> bool {
        self.lock().contains_key(&sector)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SectorId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asked = self.asked.lock();
        let left = asked.get(&self.sector).map_or(0, |count| count.saturating_sub(1));
        match left {
            0 => drop(asked.remove(&self.sector)),
            left => drop(asked.insert(self.sector, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_asked_for_until_the_last_has_ended() {
        let (asked, sector) = (Asked::default(), SectorId::new(1000, 1));
        let (one, other) = (asked.begin(sector), asked.begin(sector));
        drop(one);
        assert!(asked.contains(sector));
        drop(other);
        assert!(!asked.contains(sector));
    }
}
