//! Scrubs files of this worker's storage paths: an executor at low priority, one at a time, that reads and writes nothing of
//! the sector. Never: decides which sectors; holds locks or files of anybody.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rpc::{ApiError, ApiResult};
use sealtasks::{
    ExecutorRequest, FileType, ScrubOrder, ScrubbedFile, SectorFiles, StorageId, TaskInput, TaskOutput,
};
use uuid::Uuid;

use crate::executor::Run;
use crate::worker::Shared;

/// The files that commitments are computed of and with.
const FILES: [FileType; 3] = [FileType::Unsealed, FileType::Sealed, FileType::Cache];

/// Trees are built on the CPU: a GPU knows no priorities, and sealing waits for it.
const NO_GPU: [(&str, &str); 2] = [("BELLMAN_NO_GPU", "1"), ("FIL_PROOFS_USE_GPU_TREE_BUILDER", "false")];

/// Waits for its turn, runs the executor and tells what it found. Ends with the worker.
pub(crate) async fn scrub(shared: &Arc<Shared>, order: ScrubOrder) -> ApiResult<Vec<ScrubbedFile>> {
    let closing = || ApiError::refused(format!("worker {} is closing", shared.name));
    let _turn = tokio::select! {
        () = shared.closed.cancelled() => return Err(closing()),
        turn = shared.scrubbing.acquire() => turn.map_err(|_closed| closing())?,
    };
    if shared.executor.rehearsal.is_some() {
        return Err(ApiError::refused(format!("worker {} only plays: its files hold nothing", shared.name)));
    }
    let root = directory(shared, &order.path)?;
    let _memory = Aside::take(shared, &order);
    let file = |kind: FileType| (kind, root.join(kind.name()).join(order.sector.id.to_string()));
    let files = SectorFiles(FILES.into_iter().map(file).collect());
    let call = Uuid::new_v4();
    let dir = shared.call_dir(call);
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector: order.sector,
        work: TaskInput::Scrub(order.input),
        files,
    };
    let parameters = NO_GPU.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (place, data, gpus) = (dir.clone(), None, Vec::new());
    let run = Run { call, dir: place, task: None, request, parameters, data, gpus, spares: None };
    let done = match shared.executor.spawn(run).await {
        Ok(executor) => executor.finish(&shared.closed, &AtomicBool::new(false)).await,
        Err(failure) => Err(failure),
    };
    // What stays is removed when the worker next starts.
    let _ = tokio::fs::remove_dir_all(&dir).await;
    match done {
        Ok(TaskOutput::Scrub(files)) => Ok(files),
        Ok(_) => Err(ApiError::refused("the executor's report is about another task")),
        Err(failure) => Err(ApiError::refused(format!("{} [name: {}]", failure.message, shared.name))),
    }
}

/// Memory that the manager places nothing in while this is held: the executor's.
struct Aside(Arc<Shared>);

impl Aside {
    fn take(shared: &Arc<Shared>, order: &ScrubOrder) -> Self {
        let size = order.sector.proof.sector_size();
        let bytes = shared.resources.table.as_ref().map_or(0, |table| table.scrub_memory(size));
        shared.beside.store(bytes, Ordering::Relaxed);
        shared.changed();
        Self(Arc::clone(shared))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.beside.store(0, Ordering::Relaxed);
        self.0.changed();
    }
}

fn directory(shared: &Shared, id: &StorageId) -> ApiResult<PathBuf> {
    let open = shared.local.paths().into_iter().find(|path| path.id == *id);
    open.map(|path| path.dir).ok_or_else(|| {
        ApiError::refused(format!("worker {} does not have storage path {id} open", shared.name))
    })
}
