//! Proves replicas of this worker's storage paths for whoever may ask under `/remote`: executors that read the sector's files
//! and nothing else, a few at a time. Never: takes part in scheduling; a proof is wanted within minutes, whatever is sealed.

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

/// How many may still be begun.
pub(crate) fn turns() -> Semaphore {
    Semaphore::new(PROVERS_MIN.max(std::thread::available_parallelism().map_or(1, usize::from)))
}

#[async_trait]
impl Prover for WorkerHandle {
    async fn prove(&self, request: ExecutorRequest) -> Result<TaskOutput, ExecutorFailure> {
        let shared = self.shared();
        let refused =
            |class, why: &str| ExecutorFailure { class, message: format!("worker {} {why}", shared.name) };
        let closing = || refused(FailureClass::Aborted, "is closing");
        let _turn = tokio::select! {
            () = shared.closed.cancelled() => return Err(closing()),
            turn = shared.proving.acquire() => turn.map_err(|_closed| closing())?,
        };
        if shared.executor.rehearsal.is_some() {
            return Err(refused(
                FailureClass::Environment,
                "only plays: its files hold nothing to be proven",
            ));
        }
        let call = Uuid::new_v4();
        let dir = shared.call_dir(call);
        let run = Run {
            call,
            dir: dir.clone(),
            task: None,
            request,
            parameters: Vec::new(),
            data: None,
            gpus: Vec::new(),
        };
        // When nobody waits any longer the executor is killed.
        let stop = shared.closed.child_token();
        let _gone = stop.clone().drop_guard();
        let executor = shared.executor.spawn(run).await?;
        let ended = tokio::spawn(async move {
            let ended = executor.finish(&stop, &AtomicBool::new(false)).await;
            // What stays is removed when the worker next starts.
            let _ = tokio::fs::remove_dir_all(&dir).await;
            ended
        });
        ended.await.unwrap_or_else(|_| Err(refused(FailureClass::Compute, "lost the executor")))
    }
}
