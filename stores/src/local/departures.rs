//! Files of which a scan's word is not to be taken: those that left while it was under way, and those that a task is just
//! making.
//!
//! Without this a file that is deleted between a scan and its declaration would be declared after it is gone, and a
//! half-written one as if it were whole. Never touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtasks::{FileType, FileTypes, SectorId, StorageId};

use super::Local;
use crate::space::{Promise, Space};

type Key = (StorageId, SectorId, FileType);

/// Clones share what they know.
#[derive(Clone, Default)]
pub(super) struct Departures(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// The number of the next scan.
    next: u64,
    /// Scans under way. One whose mount hangs may stay for ever, and keeps no file from scans that begin later.
    scans: BTreeSet<u64>,
    /// What left since the first of them began, with the number of the scan that began next: only those before it have seen
    /// the file. Nothing is noted without a scan.
    gone: BTreeMap<Key, u64>,
    /// What tasks are making, with the number of those that say so.
    made: BTreeMap<Key, usize>,
}

impl Departures {
    /// A scan begins; it ends when this is dropped.
    pub(super) fn scanning(&self) -> Scanning {
        let mut known = self.lock();
        let number = known.next;
        known.next += 1;
        known.scans.insert(number);
        Scanning { departures: self.clone(), number }
    }

    /// This file has left its path.
    pub(super) fn note(&self, id: &StorageId, sector: SectorId, kind: FileType) {
        self.lock().note([(id.clone(), sector, kind)]);
    }

    fn is_made(&self, id: &StorageId, sector: SectorId, kind: FileType) -> bool {
        self.lock().made.contains_key(&(id.clone(), sector, kind))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Scans that are under way have seen these files, or half of them; those that begin from here on see what there is.
    fn note(&mut self, keys: impl IntoIterator<Item = Key>) {
        if !self.scans.is_empty() {
            let next = self.next;
            self.gone.extend(keys.into_iter().map(|key| (key, next)));
        }
    }
}

/// A scan under way.
pub(super) struct Scanning {
    departures: Departures,
    number: u64,
}

impl Scanning {
    /// The sector's files in this path that the scan must not declare.
    pub(super) fn absent(&self, id: &StorageId, sector: SectorId) -> FileTypes {
        let known = self.departures.lock();
        if known.gone.is_empty() && known.made.is_empty() {
            return FileTypes::NONE;
        }
        let is_absent = |key: &Key| {
            known.gone.get(key).is_some_and(|next| self.number < *next) || known.made.contains_key(key)
        };
        let keys = FileType::ALL.into_iter().map(|kind| (id.clone(), sector, kind));
        keys.filter(is_absent).map(|key| key.2).collect()
    }
}

impl Drop for Scanning {
    fn drop(&mut self) {
        let mut known = self.departures.lock();
        known.scans.remove(&self.number);
        match known.scans.first().copied() {
            Some(oldest) => known.gone.retain(|_, next| oldest < *next),
            None => known.gone.clear(),
        }
    }
}

/// Files that a task is making, until this is dropped: no scan declares them, no clean-up offers them.
#[must_use = "the files count as whole when this is dropped"]
pub struct Making {
    departures: Departures,
    keys: Mutex<Vec<Key>>,
}

impl Making {
    /// The files are whole and declared: scans that begin now count them. What an index has not kept that was told of them
    /// before this must be told again.
    pub fn done(&self) {
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let mut known = self.departures.lock();
        // A scan that has seen it half-written, or before it was removed, must not declare it after this.
        known.note(keys.iter().cloned());
        for key in &keys {
            if let Some(count) = known.made.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    known.made.remove(key);
                }
            }
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.done();
    }
}

/// A file or directory that a task of an earlier life of this process had begun, and may be writing still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunFile {
    /// Where it lies.
    pub file: PathBuf,
    /// How many bytes it was promised.
    pub bytes: u64,
}

/// What tasks of an earlier life of this process began.
#[derive(Default)]
pub(super) struct Begun {
    files: Vec<BegunFile>,
    held: Vec<Making>,
    /// Room for it, from before anybody is told how much there is.
    promised: Vec<(Key, Promise)>,
}

impl Begun {
    pub(super) fn of(files: Vec<BegunFile>) -> Self {
        Self { files, ..Self::default() }
    }
}

impl Local {
    /// Everything that an earlier life began is gone or held by [`Local::making`] now.
    pub fn begun_settled(&self) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let Begun { promised, held, .. } = std::mem::take(&mut *begun);
        drop(held);
        // The room of what goes on is promised until the task has it again.
        let goes_on = |(id, sector, kind): &Key| self.is_made(id, *sector, *kind);
        begun.promised = promised.into_iter().filter(|(key, _)| goes_on(key)).collect();
    }

    /// A task that goes on has promised itself what room it could have: what an earlier life was promised for its sector's
    /// files is given back.
    pub fn reserved_again(&self, sector: SectorId) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.promised.retain(|((_, of, _), _)| *of != sector);
    }

    /// The path is about to be declared: what was begun in it is not whole, and has its room.
    pub(super) fn hold_begun(&self, id: &StorageId, dir: &Path, space: &Space) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |BegunFile { file, bytes }: &BegunFile| {
            let place = file.parent()?;
            let kind: FileType = place.file_name()?.to_str()?.parse().ok()?;
            let sector: SectorId = file.file_name()?.to_str()?.parse().ok()?;
            (place.parent()? == dir).then_some((sector, kind, *bytes))
        };
        let made: Vec<_> = begun.files.iter().filter_map(here).collect();
        for (sector, kind, bytes) in made {
            begun.held.push(self.making(sector, &[(kind, id.clone())]));
            begun.promised.push(((id.clone(), sector, kind), space.adopt((sector, kind), bytes)));
        }
    }

    /// Says that a task is making these files in these paths. To be held until they are declared, or removed again.
    pub fn making(&self, sector: SectorId, files: &[(FileType, StorageId)]) -> Making {
        let keys: Vec<Key> = files.iter().map(|(kind, id)| (id.clone(), sector, *kind)).collect();
        let mut known = self.departures.lock();
        for key in &keys {
            *known.made.entry(key.clone()).or_default() += 1;
        }
        drop(known);
        Making { departures: self.departures.clone(), keys: Mutex::new(keys) }
    }

    pub(super) fn is_made(&self, id: &StorageId, sector: SectorId, kind: FileType) -> bool {
        self.departures.is_made(id, sector, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_during_a_scan_is_absent_for_those_that_were_under_way() {
        let (known, id, sector) =
            (Departures::default(), "a".parse().expect("an id"), SectorId::new(1000, 1));
        known.note(&id, sector, FileType::Sealed);
        let (first, second) = (known.scanning(), known.scanning());
        assert_eq!(first.absent(&id, sector), FileTypes::NONE, "no scan saw it");
        known.note(&id, sector, FileType::Sealed);
        drop(first);
        assert_eq!(second.absent(&id, sector), FileTypes::SEALED);
        assert_eq!(second.absent(&id, SectorId::new(1000, 2)), FileTypes::NONE);
        drop(second);
        assert!(known.lock().gone.is_empty());
        // One that was being made when a scan saw it.
        let key = (id.clone(), sector, FileType::Cache);
        known.lock().made.insert(key.clone(), 1);
        let scan = known.scanning();
        drop(Making { departures: known.clone(), keys: Mutex::new(vec![key]) });
        assert_eq!(scan.absent(&id, sector), FileTypes::CACHE);
        // For a later one it is there, however long the first one takes.
        let later = known.scanning();
        assert_eq!(later.absent(&id, sector), FileTypes::NONE);
        known.note(&id, sector, FileType::Sealed);
        drop(scan);
        let left: Vec<FileType> = known.lock().gone.keys().map(|key| key.2).collect();
        assert_eq!(left, [FileType::Sealed], "of what only the first one saw nothing is kept");
    }
}
