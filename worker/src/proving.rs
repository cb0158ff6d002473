//! Proves replicas of this worker's storage paths for whoever may ask under `/remote`: executors that read the sector's files
//! and nothing else, a few at a time. Never: takes part in scheduling; a proof is wanted within minutes, whatever is sealed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use sealtasks::{ExecutorFailure, ExecutorRequest, FailureClass, TaskOutput};
use stores::Prover;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::executor::Run;
use crate::worker::WorkerHandle;

/// Proofs made at once, at least; otherwise as many as there are CPUs. Most of the time of one is spent waiting for a disk.
const PROVERS_MIN: usize = 4;

/// CPU threads of each.
const THREADS: &str = "2";

/// How many may still be begun.
pub(crate) fn turns() -> Arc<Semaphore> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(PROVERS_MIN.max(cpus)))
}

#[async_trait]
impl Prover for WorkerHandle {
    async fn prove(&self, request: ExecutorRequest) -> Result<TaskOutput, ExecutorFailure> {
        let shared = self.shared();
        let refused =
            |class, why: &str| ExecutorFailure { class, message: format!("worker {} {why}", shared.name) };
        let closing = || refused(FailureClass::Aborted, "is closing");
        let turn = tokio::select! {
            () = shared.closed.cancelled() => return Err(closing()),
            turn = Arc::clone(&shared.proving).acquire_owned() => turn.map_err(|_closed| closing())?,
        };
        if shared.executor.rehearsal.is_some() {
            return Err(refused(
                FailureClass::Environment,
                "only plays: its files hold nothing to be proven",
            ));
        }
        let call = Uuid::new_v4();
        let dir = shared.call_dir(call);
        // Most of it is reading; many run at once.
        let parameters = vec![("RAYON_NUM_THREADS".to_owned(), THREADS.to_owned())];
        let (place, data, gpus) = (dir.clone(), None, Vec::new());
        let run = Run { call, dir: place, task: None, request, parameters, data, gpus, spares: None };
        // When nobody waits any longer the executor is killed.
        let stop = shared.closed.child_token();
        let _gone = stop.clone().drop_guard();
        let own = Arc::clone(shared);
        let ended = tokio::spawn(async move {
            // Held until the executor is gone, whoever has given up waiting for it.
            let _turn = turn;
            let ended = match own.executor.spawn(run).await {
                Ok(executor) => executor.finish(&stop, &AtomicBool::new(false)).await,
                Err(failure) => Err(failure),
            };
            // What stays is removed when the worker next starts.
            let _ = tokio::fs::remove_dir_all(&dir).await;
            ended
        });
        ended.await.unwrap_or_else(|_| Err(refused(FailureClass::Compute, "lost the executor")))
    }
}
