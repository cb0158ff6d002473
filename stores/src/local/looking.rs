//! Looking at what lies in an open path: on a thread of its own, within a time, and not at all while earlier looks at that path
//! hang. One mount that hangs so keeps neither other paths nor the process waiting, and gathers no threads. Never writes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Local, OpenPath, on_thread};
use crate::error::StoreError;

/// Whoever asks us over the network waits for an answer for a minute.
const LOOK_MAX: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(30) };
/// Looks at one path that are given up and have not come back; while there are so many, no further one begins.
const HANGING_MAX: usize = 4;

/// How many looks at a path hang. Clones share the count.
#[derive(Clone, Default)]
pub(super) struct Looks(Arc<AtomicUsize>);

/// One look; when its caller drops it before it has ended, it counts as hanging until it ends.
struct Look {
    looks: Looks,
    state: Arc<AtomicU8>,
}

const UNDER_WAY: u8 = 0;
const GIVEN_UP: u8 = 1;
const ENDED: u8 = 2;

impl Drop for Look {
    fn drop(&mut self) {
        self.looks.0.fetch_add(1, Ordering::SeqCst);
        let given_up =
            self.state.compare_exchange(UNDER_WAY, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !given_up {
            self.looks.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Runs when a look has ended, however: also when its thread could not be started, or panicked.
struct Ends(Looks, Arc<AtomicU8>);

impl Drop for Ends {
    fn drop(&mut self) {
        if self.1.swap(ENDED, Ordering::SeqCst) == GIVEN_UP {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl OpenPath {
    /// Runs `job`, which looks at what lies in this path, on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError::Hangs`] when the path does not answer within `limit`, or has not answered before; else what the job returns.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        limit: Duration,
        what: &'static str,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.looks.0.load(Ordering::SeqCst) >= HANGING_MAX {
            return Err(StoreError::Hangs { path: self.dir.clone(), seconds: limit.as_secs() });
        }
        let (looks, state) = (self.looks.clone(), Arc::new(AtomicU8::new(UNDER_WAY)));
        let ends = Ends(looks.clone(), Arc::clone(&state));
        let looking = on_thread(what, move || {
            let _ends = ends;
            job()
        });
        let _look = Look { looks, state };
        looking.within(limit, &self.dir).await
    }
}

impl Local {
    /// Runs `job`, which looks at `file` or below it, on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError::NotAttached`] when `file` lies in no open path, [`StoreError::Hangs`] when its path does not answer or has
    /// not answered before; else what the job returns.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        file: &Path,
        what: &'static str,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let at = {
            let table = self.table();
            let above = table.values().filter(|path| file.starts_with(&path.dir));
            above.max_by_key(|path| path.dir.components().count()).cloned()
        };
        let Some(path) = at else { return Err(StoreError::NotAttached { path: file.to_owned() }) };
        path.look(LOOK_MAX, what, job).await
    }

    /// Whether there is anything at `file`.
    ///
    /// # Errors
    /// As [`Local::look`], and when the disk does not say.
    pub(crate) async fn exists(&self, file: &Path) -> Result<bool, StoreError> {
        let at = file.to_owned();
        self.look(file, "looking for a file", move || at.try_exists().map_err(StoreError::io("look at", &at)))
            .await
    }

    /// Whether the disk says that nothing has this name. A link has it also while the disk that it leads to is away, and one in
    /// place of the directory says nothing then.
    ///
    /// # Errors
    /// As [`Local::exists`].
    pub(crate) async fn is_gone(&self, file: &Path) -> Result<bool, StoreError> {
        let at = file.to_owned();
        self.look(file, "looking for a file", move || match at.symlink_metadata() {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let leads_nowhere = |dir: &Path| dir.is_symlink() && !dir.exists();
                Ok(!at.parent().is_some_and(leads_nowhere))
            }
            Err(error) => Err(StoreError::io("look at", &at)(error)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::mpsc;

    use sealtasks::{
        AcquireMode, FileMeasure, FileType, FileTypes, PathType, RegisteredSealProof, SectorId, SectorRef,
        SectorSize, StorageId,
    };

    use super::*;
    use crate::fetch::TransferMeter;
    use crate::index::{CopyKind, Index};
    use crate::layout;
    use crate::local::LocalOptions;
    use crate::mem_index::MemIndex;
    use crate::meta::{StorageMeta, init_path};
    use crate::remote::{FetchOptions, Remote};

    const SEALED: FileType = FileType::Sealed;

    /// A process with two paths for storing; in each lies the replica of one sector, which is listed there.
    struct Yard {
        dir: tempfile::TempDir,
        index: Arc<dyn Index>,
        local: Arc<Local>,
    }

    impl Yard {
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let index: Arc<dyn Index> = Arc::new(MemIndex::new(Arc::new(|| 1_000_000)));
            let config = dir.path().join("storage.json");
            let options =
                LocalOptions { config, urls: vec!["http://x/remote".to_owned()], index: Arc::clone(&index) };
            let (local, _) = Local::open(options).await.expect("it opens");
            let stanza = sealtasks::StorageStanza { can_store: true, ..sealtasks::StorageStanza::default() };
            for (name, number) in [("hangs", 1), ("answers", 2)] {
                let path = dir.path().join(name);
                init_path(&path, &StorageMeta::new(&id(name), &stanza)).expect("made");
                local.attach_path(&path).await.expect("it opens");
                fs::write(layout::file(&path, sector(number).id, SEALED), [7; 2048]).expect("written");
                let of = sector(number).id;
                index.declare(&id(name), of, SEALED.into(), CopyKind::Primary).await.expect("declared");
            }
            Self { dir, index, local }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        /// Lets so many looks at the first path hang that it is looked at no more; it answers again when this is dropped.
        async fn hang(&self) -> Vec<mpsc::Sender<()>> {
            let mut held = Vec::new();
            for _ in 0..HANGING_MAX {
                let (free, holds) = mpsc::channel::<()>();
                let error =
                    self.local.look(&self.at("hangs"), "a test", move || Ok(holds.recv().is_ok())).await;
                assert_eq!(error.expect_err("it hangs").code(), "STO019");
                held.push(free);
            }
            held
        }
    }

    fn id(text: &str) -> StorageId {
        text.parse().expect("an id")
    }

    fn sector(number: u64) -> SectorRef {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
        SectorRef { id: SectorId::new(1000, number), proof }
    }

    #[tokio::test]
    async fn a_path_that_hangs_is_not_looked_at_again_until_it_answers() {
        let yard = Yard::new().await;
        let (local, hangs) = (&yard.local, yard.at("hangs/sealed"));
        let held = yard.hang().await;
        let (ran, began) = mpsc::channel();
        for _ in 0..600 {
            let ran = ran.clone();
            let refused = local.look(&hangs, "a test", move || Ok(ran.send(()))).await;
            assert_eq!(refused.expect_err("it hangs still").code(), "STO019");
        }
        assert!(began.try_recv().is_err(), "no further thread was started for it");
        assert!(local.exists(&yard.at("answers/sealed")).await.expect("the other one answers"));
        drop(held);
        let answered = async {
            while !local.exists(&hangs).await.unwrap_or(false) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered).await.expect("it is looked at again");
        let elsewhere = local.exists(yard.dir.path()).await.expect_err("no storage path");
        assert_eq!(elsewhere.code(), "STO007");
    }

    #[tokio::test]
    async fn whoever_wants_something_of_a_path_that_hangs_begins_no_further_look_at_it() {
        let yard = Yard::new().await;
        let (local, one, other) = (&yard.local, sector(1), sector(2));
        let plan = layout::arriving(&yard.at("hangs"), other.id, FileType::Cache).join("plan.json");
        fs::create_dir_all(plan.parent().expect("a place")).expect("made");
        fs::write(&plan, "{}").expect("written");
        let _held = yard.hang().await;
        // Who asked the path all the same.
        let mut looked = Vec::new();
        let mut expect = |wish, error: Option<crate::StoreError>| {
            if !matches!(error, Some(crate::StoreError::Hangs { .. })) {
                looked.push((wish, error));
            }
        };
        expect("from there", local.relocate_into(one, SEALED, &id("answers")).await.err());
        expect("to there", local.relocate_into(other, SEALED, &id("hangs")).await.err());
        expect("is it there already", local.move_storage(one, SEALED.into()).await.err());
        expect("what has changed", local.redeclare_diff(Some(&id("hangs"))).await.err());
        expect("declare it", local.redeclare(Some(&id("hangs")), true).await.err());
        let options = FetchOptions { token: String::new(), parallel: 1 };
        let remote = Remote::new(Arc::clone(local), Arc::clone(&yard.index), options);
        let (none, meter) = (FileTypes::NONE, TransferMeter::default());
        let (storage, moves) = (PathType::Storage, AcquireMode::Move);
        let acquired = remote.acquire(one, SEALED.into(), none, storage, moves, &meter).await;
        expect("does a move still owe something", acquired.err());
        assert!(looked.is_empty(), "{looked:?}");

        let files = vec![(id("hangs"), one.id, SEALED), (id("answers"), other.id, SEALED)];
        let measured = local.measure(files).await;
        let begun = local.begun(other.id, FileType::Cache, PathType::Storage).await;
        let surveys = local.survey().await;
        let told = |path: &str| surveys.iter().find(|one| one.id == id(path)).map(|one| one.error.is_some());
        let passed_over = (measured[0] == FileMeasure::default(), begun, told("hangs"));
        assert_eq!(passed_over, (true, None, Some(true)), "of these the path that hangs is left out");
        assert!(measured[1].bytes > 0 && told("answers") == Some(false), "{measured:?} {surveys:?}");
        // Nothing of it was done, or forgotten.
        for (path, number) in [("hangs", 1), ("answers", 2)] {
            assert!(layout::file(&yard.at(path), sector(number).id, SEALED).exists());
            let holders = yard.index.find(sector(number).id, SEALED.into(), None).await.expect("it answers");
            assert_eq!(holders.iter().map(|holder| holder.id.clone()).collect::<Vec<_>>(), [id(path)]);
        }
    }
}
