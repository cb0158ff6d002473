//! The commitment of a piece that a caller brings: a worker that offers DataCid computes it, the manager's own first. Nothing
//! of it is durable: whoever asks waits, and asks again after a restart. Never: hashes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rpc::{ApiError, ApiResult, Job, PieceData, ReturnMethod, Returned};
use sealtasks::{
    CallId, DataCidInput, PieceInfo, RegisteredSealProof, SectorId, SectorRef, SectorSize, TaskInput,
    TaskOutput,
};
use tokio::sync::oneshot;

use crate::driver::Driver;
use crate::service::{Service, stopping};

/// The sector that stands for none; its proof says nothing.
const NO_SECTOR: SectorRef =
    SectorRef { id: SectorId::new(0, 0), proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2) };

/// Computations at once; a further one is refused.
const AT_ONCE_MAX: usize = 16;

type Ended = Result<PieceInfo, String>;

/// Computations that somebody waits for.
#[derive(Default)]
pub(crate) struct DataCids(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// All of them, from before the worker is called.
    open: usize,
    waiting: BTreeMap<CallId, oneshot::Sender<Ended>>,
    /// Results that came before the answer to the call that they belong to; one for each computation at most.
    early: VecDeque<(CallId, Ended)>,
}

impl DataCids {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a result that somebody waits for, or may wait for in a moment.
    pub(crate) fn take(&self, call: CallId, returned: &Returned) -> bool {
        if returned.method != ReturnMethod::DataCid {
            return false;
        }
        let ended = match &returned.result {
            Ok(TaskOutput::DataCid(piece)) => Ok(*piece),
            Ok(_) => Err("the worker answered with another task's result".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let mut table = self.table();
        match table.waiting.remove(&call) {
            // Whoever asked may have gone.
            Some(waiting) => drop(waiting.send(ended)),
            None if table.open > 0 => {
                if table.early.len() >= AT_ONCE_MAX {
                    table.early.pop_front();
                }
                table.early.push_back((call, ended));
            }
            None => return false,
        }
        true
    }

    fn wait_for(&self, call: CallId) -> oneshot::Receiver<Ended> {
        let (tell, told) = oneshot::channel();
        let mut table = self.table();
        match table.early.iter().position(|(early, _)| *early == call).and_then(|at| table.early.remove(at)) {
            // The receiver is in our hands.
            Some((_, ended)) => drop(tell.send(ended)),
            None => drop(table.waiting.insert(call, tell)),
        }
        told
    }
}

/// Counts a computation until it is over, whichever way.
struct Open<'a>(&'a DataCids, Option<CallId>);

impl<'a> Open<'a> {
    fn new(all: &'a DataCids) -> ApiResult<Self> {
        let mut table = all.table();
        if table.open >= AT_ONCE_MAX {
            return Err(ApiError::refused(format!(
                "MGR125: {AT_ONCE_MAX} pieces are being computed already; try again later"
            )));
        }
        table.open += 1;
        drop(table);
        Ok(Self(all, None))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.open = table.open.saturating_sub(1);
        if let Some(call) = self.1 {
            table.waiting.remove(&call);
        }
        if table.open == 0 {
            table.early.clear();
        }
    }
}

impl Service {
    /// Has a worker compute it and waits.
    pub(crate) async fn compute_data_cid(
        &self,
        input: DataCidInput,
        data: Option<PieceData>,
    ) -> ApiResult<PieceInfo> {
        let (name, worker) = self.view(Driver::hasher).await??;
        let mut open = Open::new(&self.0.data_cids)?;
        let work = TaskInput::DataCid(input);
        let job = Job { sector: NO_SECTOR, work, attempt: None, data, gpus: Vec::new() };
        let call = worker.start(job).await?;
        open.1 = Some(call);
        let ended = self.0.data_cids.wait_for(call).await.map_err(|_gone| stopping())?;
        ended.map_err(|reason| ApiError::refused(format!("MGR126: worker {name}: {reason}")))
    }
}
