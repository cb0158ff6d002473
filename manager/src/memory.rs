//! The index's memory between two runs of the manager: read at the start, written when it changed and at the stop.
//! Losing it loses no truth, so a failure is logged and nothing stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stores::{MemIndex, SnapshotRead, read_snapshot, write_snapshot};
use tokio::sync::{Notify, watch};

use crate::shared::Shared;
use crate::workers::chain_of;

/// A snapshot is at least so old before it is replaced.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// Writing may take this part of the time, so that a large index on a slow disk is written less often.
const SNAPSHOT_SHARE: u32 = 50;
/// Whoever waits for a snapshot waits no longer than this: a disk that refuses it keeps no path away.
const WRITTEN_MAX: Duration = Duration::from_secs(10);
/// URLs of storage paths are asked this often whether they answer.
const URLS_EVERY: Duration = Duration::from_secs(600);

/// Who waits until the snapshot has what the index has now.
pub(crate) struct Written {
    wanted: Notify,
    /// What the last snapshot had: [`MemIndex::content_generation`].
    generation: watch::Sender<u64>,
}

impl Default for Written {
    fn default() -> Self {
        Self { wanted: Notify::new(), generation: watch::Sender::new(0) }
    }
}

impl Written {
    /// Waits until all that `index` knows now is in the snapshot, unless the disk refuses that.
    pub(crate) async fn up_to_now(&self, index: &MemIndex) {
        let now = index.content_generation();
        let mut written = self.generation.subscribe();
        self.wanted.notify_one();
        if tokio::time::timeout(WRITTEN_MAX, written.wait_for(|known| *known >= now)).await.is_err() {
            tracing::warn!("the index's snapshot lacks a path that was just attached");
        }
    }
}

/// Reads what was known when the manager last ran. What it was killed in writing goes.
pub(crate) async fn recall(index: &Arc<MemIndex>, file: PathBuf) {
    let into = index.clone();
    let named = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        file.parent().into_iter().for_each(stores::discard_unfinished);
        read_snapshot(&into, &file)
    });
    let read = read.await;
    match read {
        Ok(Ok(SnapshotRead::Missing)) => {}
        Ok(Ok(SnapshotRead::Restored { paths, sectors })) => {
            tracing::info!(
                paths,
                sectors,
                "the index remembers; what is not declared again stays unconfirmed"
            );
        }
        Ok(Ok(SnapshotRead::Ignored { why, kept })) => {
            tracing::warn!(
                snapshot = ?named, why, ?kept,
                "the index's snapshot is ignored and kept aside; storage paths tell the index anew what they hold"
            );
        }
        Ok(Err(error)) => {
            tracing::warn!(
                error = chain_of(&error),
                "the index's snapshot cannot be read; paths are declared anew"
            );
        }
        Err(error) => tracing::error!(%error, "reading the index's snapshot ended without a result"),
    }
}

/// Writes the snapshot whenever the index changed, soon or when somebody waits for it, and once more when the manager stops.
pub(crate) async fn keep(shared: Arc<Shared>, file: PathBuf) {
    let mut written = 0;
    let mut rest = SNAPSHOT_EVERY;
    loop {
        let stopping = tokio::select! {
            () = shared.cancelled.cancelled() => true,
            () = tokio::time::sleep(rest) => false,
            () = shared.written.wanted.notified() => false,
        };
        let now = shared.index.content_generation();
        if now != written {
            let begun = Instant::now();
            if write(&shared.index, &file).await {
                written = now;
                shared.written.generation.send_replace(now);
            }
            rest = SNAPSHOT_EVERY.max(begun.elapsed() * SNAPSHOT_SHARE);
        }
        if stopping {
            return;
        }
    }
}

async fn write(index: &Arc<MemIndex>, file: &Path) -> bool {
    let (index, file) = (index.clone(), file.to_owned());
    match tokio::task::spawn_blocking(move || write_snapshot(&index, &file)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(
                error = chain_of(&error),
                "the index's snapshot was not written; the old one stands"
            );
            false
        }
        Err(error) => {
            tracing::error!(%error, "writing the index's snapshot ended without a result");
            false
        }
    }
}

/// Asks from time to time whether the URLs of storage paths answer.
pub(crate) async fn watch_urls(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.cancelled.cancelled() => return,
            () = tokio::time::sleep(URLS_EVERY) => {}
        }
        tokio::select! {
            () = shared.cancelled.cancelled() => return,
            () = shared.remote.ask_urls(&shared.index) => {}
        }
    }
}
