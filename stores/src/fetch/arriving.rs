//! The place where a file lies while it arrives: `fetching/<sector>.part/` with a lock, the data, and notes for a later
//! life of this process.
//!
//! The lock is an open file's, so that two processes that share the mount never write one file, and a killed one holds
//! nothing. What is noted is durable before it counts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealtasks::{FileType, FileTypes, SectorId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::content::Content;
use crate::disk;
use crate::error::StoreError;
use crate::layout;

/// What [`Plan`] is noted in.
pub(crate) const PLAN: &str = "plan.json";
/// What [`Arrived`] is noted in.
const ARRIVED: &str = "arrived.json";
/// A note is at most this long (bytes).
const NOTE_MAX: u64 = 64 << 10;
/// A lock file that its holder removes while we wait for it is opened again so often.
const LOCK_TRIES: usize = 8;

/// A claimed place; free again when dropped. What lies there stays unless it is discarded.
pub(crate) struct Arriving {
    dir: PathBuf,
    path: PathBuf,
    sector: SectorId,
    kind: FileType,
    spared: Mutex<Option<Spared>>,
    _lock: File,
    /// Behind the lock: the place is free before whoever waits has his turn.
    _turn: Option<Arc<OwnedMutexGuard<()>>>,
}

/// What had arrived whole earlier and made room for another fetch.
struct Spared {
    /// Where it lies.
    aside: PathBuf,
    noted: Arrived,
    plan: Option<Plan>,
    /// The journal's bytes.
    journal: Vec<u8>,
}

/// What is being fetched, so that the rest of it can be fetched later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) content: Content,
    /// Into how many bytes it was cut.
    pub(crate) block: u64,
    /// The storage path that it comes from.
    pub(crate) holder: String,
}

/// Everything is here; its source may still have to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrived {
    /// The storage path that it came from.
    pub(crate) holder: String,
    /// The URL that it came from.
    pub(crate) url: String,
    /// Names and lengths; a plain file's name is empty.
    pub(crate) files: Vec<(String, u64)>,
    /// Which state of the source this is a copy of; `None` where the source told none.
    #[serde(default)]
    pub(crate) etag: Option<String>,
    /// Whether the source is to be deleted.
    #[serde(default)]
    pub(crate) moves: bool,
    /// Whether the copy has been declared: it stands for the file from then on. Until then it is worth what its source says.
    #[serde(default)]
    pub(crate) declared: bool,
}

impl Arriving {
    /// Takes the place, whatever lies there.
    ///
    /// # Errors
    /// [`StoreError::Arriving`] while another process fetches the same file into the same path.
    pub(crate) fn claim(path: &Path, sector: SectorId, kind: FileType) -> Result<Self, StoreError> {
        let dir = layout::arriving(path, sector, kind);
        let lock = dir.join("lock");
        for _ in 0..LOCK_TRIES {
            disk::create_dir(&dir)?;
            let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&lock);
            let file = match opened {
                // Its holder has just finished and taken the directory away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(StoreError::io("create", &lock))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Arriving { sector, kind, path: dir });
                }
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &lock)(error)),
            }
            if is_still(&file, &lock) {
                let spared = Mutex::default();
                return Ok(Self {
                    dir,
                    path: path.to_owned(),
                    sector,
                    kind,
                    spared,
                    _lock: file,
                    _turn: None,
                });
            }
        }
        Err(StoreError::Arriving { sector, kind, path: dir })
    }

    /// Keeps others of this process waiting for their turn as long as the place is held, by whomever.
    pub(crate) fn in_turn(self, turn: Arc<OwnedMutexGuard<()>>) -> Self {
        Self { _turn: Some(turn), ..self }
    }

    /// The place if something was left there; nothing is created.
    pub(crate) fn left(path: &Path, sector: SectorId, kind: FileType) -> Result<Option<Self>, StoreError> {
        if layout::arriving(path, sector, kind).is_dir() {
            Self::claim(path, sector, kind).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Which sector's file arrives here.
    pub(crate) const fn file(&self) -> (SectorId, FileType) {
        (self.sector, self.kind)
    }

    /// The file or directory that arrives.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Which blocks are here.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// What an earlier life was fetching.
    pub(crate) fn plan(&self) -> Option<Plan> {
        read(&self.dir.join(PLAN))
    }

    /// Notes what is being fetched.
    pub(crate) fn set_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        write(&self.dir.join(PLAN), plan)
    }

    /// What an earlier life had fetched whole.
    pub(crate) fn arrived(&self) -> Option<Arrived> {
        read(&self.dir.join(ARRIVED))
    }

    /// Whether a whole file arrived here, so long ago at most, whose source is still to be deleted, and nothing else
    /// lies here.
    pub(crate) fn is_debt(dir: &Path, age_max: Duration) -> bool {
        let note = dir.join(ARRIVED);
        let noted: Option<Arrived> = read(&note);
        noted.is_some_and(|noted| noted.moves) && !dir.join("data").exists() && age(&note) <= age_max
    }

    /// How long ago everything was here.
    pub(crate) fn age(&self) -> Duration {
        age(&self.dir.join(ARRIVED))
    }

    /// Notes that everything is here and durable.
    pub(crate) fn set_arrived(&self, arrived: &Arrived) -> Result<(), StoreError> {
        write(&self.dir.join(ARRIVED), arrived)
    }

    /// Leaves nothing but the note of what had arrived.
    pub(crate) fn keep_note(&self) -> Result<(), StoreError> {
        [PLAN, "journal"].iter().try_for_each(|name| disk::remove(&self.dir.join(name)))
    }

    /// Empties the place for another fetch. What had arrived whole makes room and is spared: it may be the last copy. It is
    /// given back by [`Arriving::give_back`], and outlives this process under a name that nothing deletes.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        if let Some(noted) = self.arrived().filter(|_| Self::is_whole(&self.dir)) {
            let aside = layout::replaced(&self.path, self.sector, self.kind);
            fs::rename(self.data(), &aside).map_err(StoreError::io("set aside", &self.data()))?;
            disk::sync_parent(&aside)?;
            let (plan, journal) = (self.plan(), fs::read(self.journal()).unwrap_or_default());
            *self.spared() = Some(Spared { aside, noted, plan, journal });
        }
        self.empty()
    }

    fn spared(&self) -> MutexGuard<'_, Option<Spared>> {
        self.spared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self) -> Result<(), StoreError> {
        for name in [ARRIVED, PLAN, "journal", "data"] {
            disk::remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// Renames what arrived to its place. What lay there undeclared is set aside: the index knew of no file there, but an
    /// index can have forgotten. It is deleted only if it is the same, byte by byte; otherwise the survey lists it.
    pub(crate) fn put_in_place(&self) -> Result<(), StoreError> {
        let file = layout::file(&self.path, self.sector, self.kind);
        let aside = layout::replaced(&self.path, self.sector, self.kind);
        if disk::put_in_place(&self.data(), &file, &aside)? {
            if disk::same_bytes(&file, &aside).unwrap_or(false) {
                disk::discard(&aside);
            } else {
                tracing::warn!(path = ?file, ?aside, "an undeclared file lay in the place of the fetched one; it was set aside");
            }
        }
        // Its old name is gone before anybody is told of the new one.
        disk::sync_parent(&self.data())?;
        self.settle_spared(&file);
        // What a Lotus process had begun in the same place is of no use to anyone now.
        disk::remove(&layout::arriving_at_lotus(&self.path, self.sector, self.kind))
    }

    /// What was spared goes if the source that it came from has just sent this in its place, or if it is the same; otherwise the
    /// survey lists it.
    fn settle_spared(&self, file: &Path) {
        let Some(Spared { aside, noted, .. }) = self.spared().take() else { return };
        let superseded = self.arrived().is_some_and(|now| now.holder == noted.holder);
        if superseded || disk::same_bytes(file, &aside).unwrap_or(false) {
            disk::discard(&aside);
        } else {
            tracing::warn!(path = ?file, ?aside, holder = noted.holder, "an earlier copy from another holder was set aside");
        }
    }

    /// Whether the file at its place has all that had arrived, and perhaps more by now: then only the rest of an
    /// interrupted move is to be done.
    pub(crate) fn still_holds(&self, arrived: &Arrived) -> bool {
        let file = layout::file(&self.path, self.sector, self.kind);
        let has_all = |shape: Vec<(String, u64)>| arrived.files.iter().all(|one| shape.contains(one));
        !self.data().exists() && disk::shape(&file).is_ok_and(has_all)
    }

    /// The files of a storage path that a fetch put in their places, and that nobody was told of as far as is noted: an
    /// earlier life of this process ended in between.
    pub(crate) fn untold(path: &Path) -> Vec<(SectorId, FileType)> {
        let is_untold = |(at, sector, kind): &(PathBuf, SectorId, FileType)| {
            let noted: Option<Arrived> = read(&at.join(ARRIVED));
            let file = layout::file(path, *sector, *kind);
            !at.join("data").exists()
                && noted
                    .is_some_and(|noted| !noted.declared && is_as_it_came(&file, &at.join(ARRIVED), &noted))
        };
        let arrivals = layout::arrivals(path).into_iter().filter(is_untold);
        arrivals.map(|(_, sector, kind)| (sector, kind)).collect()
    }

    /// The files of a storage path that were moved here, lie here still in whatever form, and whose sources may not be deleted
    /// yet: they count, also where a path only lends room for sealing, and a source goes only for a copy that does.
    pub(crate) fn moved(path: &Path) -> BTreeMap<SectorId, FileTypes> {
        let mut moved: BTreeMap<SectorId, FileTypes> = BTreeMap::new();
        for (at, sector, kind) in layout::arrivals(path) {
            let counts = Self::is_debt(&at, Duration::MAX)
                && read(&at.join(ARRIVED)).is_some_and(|noted: Arrived| noted.declared)
                && layout::file(path, sector, kind).exists();
            if counts {
                let types = moved.entry(sector).or_default();
                *types = *types | kind.into();
            }
        }
        moved
    }

    /// Takes an undeclared file back from its place, so that its source can be asked whether it is still the one. One that
    /// would have to be brought again as well: without its note, which makes room for another, a scan would declare it.
    pub(crate) fn take_back(&self) -> Result<(), StoreError> {
        let file = layout::file(&self.path, self.sector, self.kind);
        let Some(noted) = self.arrived() else { return Ok(()) };
        if self.data().exists()
            || (noted.declared && self.plan().is_none())
            || !is_as_it_came(&file, &self.dir.join(ARRIVED), &noted)
        {
            return Ok(());
        }
        fs::rename(&file, self.data()).map_err(StoreError::io("take back", &file))?;
        // The new name before the old one is gone.
        disk::sync_parent(&self.data())?;
        disk::sync_parent(&file)
    }

    /// Undoes [`Arriving::take_back`] where the source could not be asked: what is whole lies where it is found should the
    /// source never come back. Also of what had not been in its place yet.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        let file = layout::file(&self.path, self.sector, self.kind);
        let spared = self.spared().take();
        if let Some(Spared { aside, noted, plan, journal }) = spared {
            // The notes come first: without them a scan would take the file for one that counts.
            self.empty()?;
            if let Some(plan) = plan {
                fs::write(self.journal(), journal).map_err(StoreError::io("write", &self.journal()))?;
                self.set_plan(&plan)?;
            }
            self.set_arrived(&noted)?;
            if file.exists() {
                return Ok(());
            }
            fs::rename(&aside, &file).map_err(StoreError::io("put in place", &file))?;
            return disk::sync_parent(&file);
        }
        if file.exists() || !Self::is_whole(&self.dir) {
            return Ok(());
        }
        fs::rename(self.data(), &file).map_err(StoreError::io("put in place", &file))?;
        disk::sync_parent(&file)
    }

    /// Whether all of a file arrived here and lies here still: it is no remainder, and may be the last copy.
    pub(crate) fn is_whole(dir: &Path) -> bool {
        let noted: Option<Arrived> = read(&dir.join(ARRIVED));
        noted.is_some_and(|noted| disk::shape(&dir.join("data")).is_ok_and(|shape| shape == noted.files))
    }

    /// Takes the place away with everything in it. A failure is only logged: what is left is found by the next scan.
    pub(crate) fn discard(&self) {
        let aside = layout::leaving(&self.path, self.sector, self.kind);
        match fs::rename(&self.dir, &aside) {
            Ok(()) => {
                // A note that comes back after a power cut would have something done that is done.
                if let Err(error) = disk::sync_parent(&aside) {
                    tracing::warn!(path = ?self.dir, error = crate::local::chain(&error), "the end of a fetch is not durable");
                }
                disk::discard(&aside);
            }
            Err(error) => {
                tracing::warn!(path = ?self.dir, %error, "the remains of a fetch could not be removed");
            }
        }
    }
}

/// Whether nobody has written to a file since it arrived: not after the note of that, which is the younger one then.
fn is_as_it_came(file: &Path, note: &Path, noted: &Arrived) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let older = modified(file).is_ok_and(|at| modified(note).is_ok_and(|noted| at <= noted));
    older && disk::shape(file).is_ok_and(|shape| shape == noted.files)
}

fn age(note: &Path) -> Duration {
    let noted = fs::metadata(note).and_then(|found| found.modified());
    noted.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

fn is_still(file: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    id(file.metadata()).is_some_and(|opened| id(fs::metadata(path)) == Some(opened))
}

/// A damaged note is none: what it was about is fetched anew.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&disk::read_bounded(path, NOTE_MAX).ok()?).ok()
}

fn write(path: &Path, note: &impl Serialize) -> Result<(), StoreError> {
    let json = |source| StoreError::Json { path: path.to_owned(), source };
    disk::replace(path, &serde_json::to_vec(note).map_err(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_belongs_to_one_fetch_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let sector = SectorId::new(1000, 1);
        let claim = || Arriving::claim(dir.path(), sector, FileType::Sealed);
        let first = claim().expect("free");
        assert_eq!(claim().err().expect("taken").code(), "STO023");
        Arriving::claim(dir.path(), sector, FileType::Cache).expect("another file");
        fs::write(first.data(), "half").expect("written");
        drop(first);
        let second = claim().expect("free again");
        assert_eq!(fs::read(second.data()).expect("it stayed"), b"half");
        second.discard();
        assert!(Arriving::left(dir.path(), sector, FileType::Sealed).expect("readable").is_none());
        assert_eq!(fs::read_dir(dir.path().join("sealed/fetching")).expect("a directory").count(), 0);
    }

    #[test]
    fn damaged_notes_count_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Arriving::claim(dir.path(), SectorId::new(1000, 1), FileType::Sealed).expect("free");
        let note = Arrived {
            holder: "a".to_owned(),
            url: "http://a/remote".to_owned(),
            files: vec![(String::new(), 5)],
            etag: None,
            moves: true,
            declared: false,
        };
        place.set_arrived(&note).expect("written");
        assert_eq!(place.arrived(), Some(note));
        fs::write(place.dir.join(ARRIVED), "{\"holder\":").expect("cut");
        assert_eq!(place.arrived(), None);
    }
}
