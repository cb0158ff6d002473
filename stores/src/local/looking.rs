//! Looking at what lies in an open path: on a thread of its own, within a time, and not at all while earlier looks at that path
//! hang. One mount that hangs so keeps neither other paths nor the process waiting, and gathers no threads. Never writes.

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
    async fn look<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.looks.0.load(Ordering::SeqCst) >= HANGING_MAX {
            return Err(StoreError::Hangs { path: self.dir.clone(), seconds: LOOK_MAX.as_secs() });
        }
        let (looks, state) = (self.looks.clone(), Arc::new(AtomicU8::new(UNDER_WAY)));
        let ends = Ends(looks.clone(), Arc::clone(&state));
        let looking = on_thread(what, move || {
            let _ends = ends;
            job()
        });
        let _look = Look { looks, state };
        looking.within(LOOK_MAX, &self.dir).await
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
        path.look(what, job).await
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
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::index::Index;
    use crate::local::LocalOptions;
    use crate::mem_index::MemIndex;
    use crate::meta::{StorageMeta, init_path};

    #[tokio::test]
    async fn a_path_that_hangs_is_not_looked_at_again_until_it_answers() {
        let dir = tempfile::tempdir().expect("a directory");
        let index: Arc<dyn Index> = Arc::new(MemIndex::new(Arc::new(|| 1_000_000)));
        let config = dir.path().join("storage.json");
        let options = LocalOptions { config, urls: vec!["http://x/remote".to_owned()], index };
        let (local, _) = Local::open(options).await.expect("it opens");
        let stanza = sealtasks::StorageStanza { can_store: true, ..sealtasks::StorageStanza::default() };
        for name in ["hangs", "answers"] {
            let path = dir.path().join(name);
            init_path(&path, &StorageMeta::new(&name.parse().expect("an id"), &stanza)).expect("made");
            local.attach_path(&path).await.expect("it opens");
        }
        let (hangs, answers) = (dir.path().join("hangs/sealed"), dir.path().join("answers/sealed"));
        let mut held = Vec::new();
        for _ in 0..HANGING_MAX {
            let (free, holds) = mpsc::channel::<()>();
            let error = local.look(&hangs, "a test", move || Ok(holds.recv().is_ok())).await;
            assert_eq!(error.expect_err("it hangs").code(), "STO019");
            held.push(free);
        }
        let (ran, began) = mpsc::channel();
        for _ in 0..600 {
            let ran = ran.clone();
            let refused = local.look(&hangs, "a test", move || Ok(ran.send(()))).await;
            assert_eq!(refused.expect_err("it hangs still").code(), "STO019");
        }
        assert!(began.try_recv().is_err(), "no further thread was started for it");
        assert!(local.exists(&answers).await.expect("the other one answers"));
        held.clear();
        let answered = async {
            while !local.exists(&hangs).await.unwrap_or(false) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered).await.expect("it is looked at again");
        let elsewhere = local.exists(dir.path()).await.expect_err("no storage path");
        assert_eq!(elsewhere.code(), "STO007");
    }
}
