//! Deleting exactly the file that was copied: the end of a move between Sealyards. What was written at its place since
//! then stays, and so does every other copy.

use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sealtasks::{FileType, SectorId, StorageId};

use super::removal::{Checked, Doomed, set_aside};
use super::{Local, LocalPath, chain};
use crate::crash::crash_point;
use crate::disk;
use crate::error::StoreError;
use crate::identity::look;
use crate::index::CopyKind;
use crate::layout;
use crate::space::FileKey;

/// What lies in the open paths of a file of which one state is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The very state, in this path.
    Same(StorageId),
    /// Other states only.
    Other,
    /// Nothing.
    Nothing,
}

impl Local {
    /// Looks for the state `etag` of a file in all open paths but those in `keep`, whatever the index says of them. Those that
    /// it names are looked at first, the others all at once: one that hangs keeps nobody waiting for what lies in another.
    ///
    /// # Errors
    /// When it is found nowhere and a path cannot be looked at, or another deletion has set it aside and not decided yet.
    pub(crate) async fn find_exactly(
        &self,
        sector: SectorId,
        kind: FileType,
        etag: &str,
        keep: &[StorageId],
    ) -> Result<Found, StoreError> {
        let listed = self.copies_here(sector, kind).await?;
        let is_listed = |id: &StorageId| listed.iter().any(|(one, _)| one == id);
        let places = self.paths().into_iter().filter(|path| !keep.contains(&path.id));
        let (first, then): (Vec<_>, Vec<_>) = places.partition(|path| is_listed(&path.id));
        let (mut found, mut failure) = (Found::Nothing, None);
        for places in [first, then] {
            let mut looks: FuturesUnordered<_> =
                places.into_iter().map(|path| self.state_in(path, sector, kind, etag)).collect();
            while let Some(seen) = looks.next().await {
                match seen {
                    Ok(Found::Same(id)) => return Ok(Found::Same(id)),
                    Ok(Found::Other) => found = Found::Other,
                    Ok(Found::Nothing) => {}
                    Err(error) => failure = Some(error),
                }
            }
        }
        failure.map_or(Ok(found), Err)
    }

    async fn state_in(
        &self,
        path: LocalPath,
        sector: SectorId,
        kind: FileType,
        etag: &str,
    ) -> Result<Found, StoreError> {
        let (file, etag) = (layout::file(&path.dir, sector, kind), etag.to_owned());
        let at = file.clone();
        self.look(&file, "looking for a moved file", move || {
            let is_doubted = || layout::is_doubted(&path.dir, sector, kind);
            Ok(match state_at(&at, &etag, is_doubted)? {
                None => return Err(StoreError::Doubted { sector, kind, path: at }),
                Some(State::Nothing) => Found::Nothing,
                Some(State::Same) => Found::Same(path.id),
                Some(State::Other) => Found::Other,
            })
        })
        .await
    }

    /// Deletes the copy in one path if it is still in the state `etag`, whether or not the index lists it. A primary copy
    /// elsewhere counts only if it is the `checked` one.
    ///
    /// # Errors
    /// [`StoreError::LastCopy`] when no other primary copy is known, [`StoreError::Changed`] when it is another file by
    /// now; nothing was deleted then.
    pub(crate) async fn remove_exactly(
        &self,
        sector: SectorId,
        kind: FileType,
        checked: &Checked,
        etag: &str,
    ) -> Result<(), StoreError> {
        let Checked { copy: id, twin } = checked;
        let turn = self.removing.lock().await;
        let holders = self.holders_of(sector, kind).await?;
        let listed =
            holders.iter().find(|holder| holder.id == *id).map(|holder| CopyKind::from(holder.primary));
        let path = self.path(id)?;
        // Unlisted: it is matched as closely as a primary one.
        let copy = listed.unwrap_or(CopyKind::Primary);
        let doomed = [Doomed { id: id.clone(), path, copy, listed: listed.is_some(), twin: twin.clone() }];
        self.check_survivor(sector, kind, &doomed).await?;
        let _leaving = self.leaving(sector, kind, &doomed);
        if listed.is_some() {
            self.index.drop_files(id, sector, kind.into()).await?;
            if let Err(error) = self.check_survivor(sector, kind, &doomed).await {
                self.list_again(id, (sector, kind), listed).await?;
                return Err(error);
            }
        }
        // As with every deletion: what takes long, or hangs, keeps no other one waiting.
        drop(turn);
        crash_point("worker.leave.dropped");
        let [Doomed { path, .. }] = doomed;
        let file = layout::file(&path.dir, sector, kind);
        let leaving = Leaving::of(&path.dir, sector, kind);
        let (wanted, kept, of) = (etag.to_owned(), self.kept.clone(), id.clone());
        let deleted = blocking(move || {
            let deleted = leaving.delete_if(|file| Ok(look(file)?.etag == wanted));
            if deleted.is_ok() {
                kept.forget(&of, sector, kind);
            }
            Ok(deleted)
        })
        .await
        .unwrap_or_else(|error| Err(Kept::There(error)));
        path.space.touched();
        if let Err(kept) = deleted {
            let (error, is_there) = match kept {
                Kept::There(error) => (error, true),
                Kept::Aside(error) => (error, false),
            };
            // Of what has come to its place meanwhile nothing is known; whoever put it there declares it.
            if is_there && self.exists(&file).await.unwrap_or(true) {
                self.list_again(id, (sector, kind), listed).await?;
            }
            return Err(error);
        }
        if listed.is_none() {
            self.forget_older(id, sector, kind, &file).await?;
        }
        tracing::info!(%sector, %kind, path = %id, "deleted after it was moved away");
        Ok(())
    }

    async fn list_again(
        &self,
        id: &StorageId,
        (sector, kind): FileKey,
        listed: Option<CopyKind>,
    ) -> Result<(), StoreError> {
        match listed {
            Some(copy) => Ok(self.index.declare(id, sector, kind.into(), copy).await?),
            None => Ok(()),
        }
    }
}

/// What lies in a place where one state of a file is meant.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Same,
    Other,
    Nothing,
}

/// What lies at `file`; `None`: another deletion has set it aside, and may put it back. Blocks.
fn state_at(file: &Path, etag: &str, is_doubted: impl FnOnce() -> bool) -> Result<Option<State>, StoreError> {
    let is_there = || file.try_exists().map_err(StoreError::io("look at", file));
    if !is_there()? {
        if is_doubted() {
            return Ok(None);
        }
        // It may have been put back between the two looks.
        if !is_there()? {
            return Ok(Some(State::Nothing));
        }
    }
    Ok(Some(if look(file)?.etag == etag { State::Same } else { State::Other }))
}

/// A file that goes if it is the one that is meant, and the names that it gets on its way.
pub(super) struct Leaving {
    file: PathBuf,
    /// Until it is known to be that one: nothing deletes a file under such a name unasked.
    unsure: PathBuf,
    /// From then on: whoever finds such a one deletes it.
    sure: PathBuf,
}

/// It was not deleted.
#[derive(Debug)]
enum Kept {
    /// It lies in its place.
    There(StoreError),
    /// It lies aside: something else has come to its place, and whoever opens the path next tries again to put it back; or its
    /// deletion has begun, and a scan ends it.
    Aside(StoreError),
}

impl Leaving {
    /// A sector's file in this path.
    pub(super) fn of(path: &Path, sector: SectorId, kind: FileType) -> Self {
        Self {
            file: layout::file(path, sector, kind),
            unsure: layout::doubted(path, sector, kind),
            sure: layout::leaving(path, sector, kind),
        }
    }

    /// Deletes the file if it is still in the state `etag`.
    pub(super) fn delete_exactly(&self, etag: &str) -> Result<(), StoreError> {
        let deleted = self.delete_if(|file| Ok(look(file)?.etag == etag));
        deleted.map_err(|kept| match kept {
            Kept::There(error) | Kept::Aside(error) => error,
        })
    }

    /// Renames the file out of sight first, where nobody opens it by its name any more, and looks at it there.
    fn delete_if(&self, is_meant: impl FnOnce(&Path) -> Result<bool, StoreError>) -> Result<(), Kept> {
        let Self { file, unsure, sure } = self;
        let aside = match set_aside(file, unsure) {
            Ok(None) => return Ok(()),
            Ok(Some(aside)) => aside,
            // Not even for another name: a plain file goes at once or not at all, so that a full disk can be emptied.
            Err(StoreError::Io { source, .. }) if disk::is_full(&source) && !file.is_dir() => {
                return self.delete_in_place(is_meant);
            }
            Err(error) => return Err(Kept::There(error)),
        };
        crash_point("worker.leave.doubted");
        let meant = is_meant(&aside);
        if matches!(meant, Ok(true)) {
            let sure = aside.with_file_name(sure.file_name().unwrap_or_default());
            let gone = match std::fs::rename(&aside, &sure) {
                // Else it could be back after a power cut under the name by which it is put back.
                Ok(()) => disk::sync_parent(&sure).and_then(|()| disk::remove(&sure)),
                // On a full disk the other name may have no room.
                Err(error) if disk::is_full(&error) => disk::remove(&aside),
                Err(error) => Err(StoreError::io("set aside", &aside)(error)),
            };
            return gone.map_err(Kept::Aside);
        }
        // What has come to lie there meanwhile is not replaced.
        if let Err(error) = disk::rename_to_free(&aside, file) {
            tracing::error!(path = ?file, ?aside, error = chain(&error), "a file that was set aside could not be put back");
            return Err(Kept::Aside(error));
        }
        if let Err(error) = meant {
            tracing::warn!(path = ?file, error = chain(&error), "not deleted: it cannot be looked at");
            return Err(Kept::There(error));
        }
        Err(Kept::There(self.changed()))
    }

    fn delete_in_place(&self, is_meant: impl FnOnce(&Path) -> Result<bool, StoreError>) -> Result<(), Kept> {
        let deleted = match is_meant(&self.file) {
            Ok(true) => disk::remove(&self.file).and_then(|()| disk::sync_parent(&self.file)),
            Ok(false) => Err(self.changed()),
            Err(error) => Err(error),
        };
        deleted.map_err(Kept::There)
    }

    fn changed(&self) -> StoreError {
        StoreError::Changed { url: self.file.display().to_string() }
    }
}

/// Puts back what lies aside in a path since a process ended while it looked at it once more: it was not decided that it goes.
/// Where another file lies in its place it stays aside. Blocks.
pub(super) fn put_back_doubted(path: &Path) {
    for (aside, file) in layout::all_doubted(path) {
        match disk::rename_to_free(&aside, &file) {
            Ok(()) => {
                tracing::warn!(path = ?file, "put back: a process ended before it had decided whether to delete it")
            }
            Err(error) => {
                tracing::warn!(path = ?file, ?aside, error = chain(&error), "what was set aside stays there");
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "deleting a moved file" }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn what_a_process_had_not_decided_on_when_it_ended_is_put_back_unless_its_place_is_taken() {
        for taken in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let (path, sector, kind) = (dir.path(), SectorId::new(1000, 1), FileType::Sealed);
            let file = layout::file(path, sector, kind);
            fs::create_dir_all(path.join("sealed")).expect("made");
            fs::write(&file, "the only one").expect("written");
            let leaving = Leaving::of(path, sector, kind);
            let killed = catch_unwind(AssertUnwindSafe(|| leaving.delete_if(|_| panic!("killed here"))));
            assert!(killed.is_err() && !file.exists());
            if taken {
                fs::write(&file, "another one").expect("written");
            }
            put_back_doubted(path);
            let scan = layout::scan(path).expect("scanned");
            let there = fs::read_to_string(&file).expect("a file");
            if taken {
                assert_eq!((there.as_str(), scan.replaced.len()), ("another one", 1), "{scan:?}");
                assert_eq!(fs::read_to_string(&scan.replaced[0]).expect("kept"), "the only one");
                assert_eq!(layout::replaced_file(&scan.replaced[0]), Some((sector, kind)));
            } else {
                assert_eq!((there.as_str(), scan.replaced.len()), ("the only one", 0), "{scan:?}");
            }
        }
    }

    #[test]
    fn what_is_put_back_between_two_looks_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, aside) = (dir.path().join("file"), dir.path().join("aside"));
        fs::write(&file, "moved").expect("written");
        let etag = look(&file).expect("there").etag;
        fs::rename(&file, &aside).expect("set aside");
        assert_eq!(state_at(&file, &etag, || true).expect("seen"), None);
        assert_eq!(state_at(&file, &etag, || false).expect("seen"), Some(State::Nothing));
        let put_back = || fs::rename(&aside, &file).is_err();
        assert_eq!(state_at(&file, &etag, put_back).expect("seen"), Some(State::Same));
        assert_eq!(state_at(&file, "another", || false).expect("seen"), Some(State::Other));
    }

    #[test]
    fn which_file_is_set_aside_is_told_by_type_and_sector() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, sector) = (dir.path(), SectorId::new(1000, 1));
        for kind in [FileType::Sealed, FileType::Cache] {
            let aside = layout::doubted(path, sector, kind);
            fs::create_dir_all(aside.parent().expect("below")).expect("made");
            fs::write(&aside, "doubted").expect("written");
        }
        assert_eq!(layout::all_doubted(path).len(), 2);
        assert!(layout::is_doubted(path, sector, FileType::Cache));
        assert!(!layout::is_doubted(path, sector, FileType::Unsealed));
        assert!(!layout::is_doubted(path, SectorId::new(1000, 2), FileType::Cache));
    }

    /// A process that is killed before it has looked must leave nothing behind that a scan deletes.
    #[test]
    fn until_it_is_known_to_be_the_one_that_is_meant_it_has_no_name_that_a_scan_deletes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, sector, kind) = (dir.path(), SectorId::new(1000, 1), FileType::Sealed);
        let file = layout::file(path, sector, kind);
        fs::create_dir_all(path.join("sealed")).expect("made");
        fs::write(&file, "rewritten").expect("written");
        let leaving = Leaving::of(path, sector, kind);
        let refused = leaving.delete_if(|aside| {
            let scan = layout::scan(path).expect("scanned");
            assert!(scan.removed.is_empty() && scan.replaced == [aside.to_owned()], "{scan:?}");
            assert_eq!(fs::read(aside).expect("there"), b"rewritten");
            Ok(false)
        });
        let Err(Kept::There(error)) = refused else { panic!("another file") };
        assert_eq!(error.code(), "STO024");
        assert_eq!(fs::read(&file).expect("put back"), b"rewritten");

        // What comes to its place meanwhile is not replaced, and is no copy that this one was listed as.
        let refused = leaving.delete_if(|_| {
            fs::write(&file, "a newcomer").expect("written");
            Ok(false)
        });
        assert!(matches!(refused, Err(Kept::Aside(_))), "{refused:?}");
        assert_eq!(fs::read(&file).expect("untouched"), b"a newcomer");
        fs::remove_file(&file).expect("gone again");
        put_back_doubted(path);
        assert_eq!(fs::read(&file).expect("put back"), b"rewritten");
        // Where a full disk has no room for another name.
        let Err(Kept::There(error)) = leaving.delete_in_place(|_| Ok(false)) else { panic!("another file") };
        assert_eq!((error.code(), fs::read(&file).expect("there")), ("STO024", b"rewritten".to_vec()));
        let full = Leaving::of(path, SectorId::new(1000, 2), kind);
        fs::write(&full.file, "the one that was meant").expect("written");
        full.delete_in_place(|_| Ok(true)).expect("deleted");
        assert!(!full.file.exists());

        leaving.delete_if(|_| Ok(true)).expect("the one that was meant");
        let scan = layout::scan(path).expect("scanned");
        assert!(scan.removed.is_empty() && scan.replaced.is_empty() && scan.files.is_empty(), "{scan:?}");
    }
}
