//! What scrubbing needs to know of a sector and its files' holders, the memory that it takes there, and what it found. Never:
//! looks at a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{
    RegisteredSealProof, ResourceTable, ScrubInput, ScrubVerdict, ScrubbedFile, SectorId, SectorRef,
    StorageId, WorkerId,
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::input::{Busy, Input, Reply};
use super::{Driver, Peer, Worker};
use crate::state::StateEvent;

/// Memory of a worker that what is done beside tasks has, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// As the worker says itself.
    pub(crate) told: u64,
    /// Set aside for scrubs that were asked for, by number. A worker does one after the other.
    scrubs: BTreeMap<u64, u64>,
    /// All that is set aside on its machine.
    pub(crate) of_machine: u64,
}

impl Beside {
    /// What is set aside on this worker: also for a scrub that goes on though nobody waits for it any more.
    pub(crate) fn own(&self) -> u64 {
        self.scrubs.values().copied().max().unwrap_or(0).max(self.told)
    }
}

/// A worker that is to scrub, and its memory, which is free again when this is dropped.
pub(crate) struct Scrubber {
    pub(crate) name: String,
    pub(crate) api: Arc<dyn WorkerApi>,
    _memory: Aside,
}

struct Aside {
    session: WorkerId,
    number: u64,
    inputs: mpsc::Sender<Input>,
    tasks: TaskTracker,
}

impl Drop for Aside {
    fn drop(&mut self) {
        let (inputs, session, number) = (self.inputs.clone(), self.session, self.number);
        // A manager that stops has no use for it.
        self.tasks.spawn(async move { drop(inputs.send(Input::ScrubOver { session, number }).await) });
    }
}

/// A sector that could be scrubbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scrubbable {
    pub(crate) sector: SectorRef,
    pub(crate) input: ScrubInput,
    /// Something is being done with it.
    pub(crate) busy: bool,
    /// How many steps its pipeline has taken and errands it has had: two looks with the same number have nothing between
    /// them.
    pub(crate) steps: u64,
}

impl Driver {
    /// What a sector's files should commit to, and whether they are being worked on; `None`: no such sector.
    pub(crate) fn scrubbable(&self, id: SectorId) -> Option<Scrubbable> {
        let known = self.sectors.get(&id)?;
        let cids = known.record.progress().cids;
        let given_up = self.detached.values().any(|given_up| given_up.sector.id == id);
        // One that waits for a retry, or for the operator, is not being worked on.
        let worked_on = matches!(known.busy, Busy::Task(_) | Busy::Asking);
        let of_it = self.tasks.values().filter(|task| task.sector.id == id).map(|task| task.id);
        Some(Scrubbable {
            sector: known.record.sector(),
            input: ScrubInput {
                unsealed: cids.map(|cids| cids.unsealed),
                sealed: cids.map(|cids| cids.sealed),
            },
            busy: given_up || worked_on || self.errands.contains_key(&id) || of_it.count() > 0,
            steps: known.steps,
        })
    }

    /// Finds the worker that has a path open and can look at its files, and sets the memory aside that it takes: whatever is
    /// placed there from now on fits beside it. Where there is none free, nothing is scrubbed.
    pub(super) fn begin_scrub(
        &mut self,
        path: &StorageId,
        proof: RegisteredSealProof,
        reply: Reply<Scrubber>,
    ) {
        let answer = self.scrubber_of(path).and_then(|session| self.set_aside(session, proof));
        self.answer(reply, answer);
    }

    fn set_aside(&mut self, session: WorkerId, proof: RegisteredSealProof) -> ApiResult<Scrubber> {
        let size = proof.sector_size();
        let free = self.free_memory(session);
        let number = self.scrubs_begun;
        let Some(worker) = self.workers.get_mut(&session) else {
            return Err(ApiError::refused("MGR146: the worker went while it was asked to scrub"));
        };
        let table = worker.info.resources.table.as_ref();
        let bytes = table
            .map_or_else(|| ResourceTable::builtin().scrub_memory(size), |table| table.scrub_memory(size));
        if bytes > free && !worker.info.ignore_resources {
            return Err(ApiError::refused(format!(
                "MGR147: scrubbing takes {bytes} bytes of memory and {} has {free} free beside its tasks; scrub it again when it \
                 has less to do, `sealyard workers list` shows what it does",
                worker.name()
            )));
        }
        self.scrubs_begun += 1;
        worker.beside.scrubs.insert(number, bytes);
        let (name, api) = (worker.name().to_owned(), worker.api.clone());
        self.beside_changed(session);
        let (inputs, tasks) = (self.shared.inputs.clone(), self.shared.tasks.clone());
        Ok(Scrubber { name, api, _memory: Aside { session, number, inputs, tasks } })
    }

    /// RAM of a worker's machine that no task was given, nor anybody else uses, in bytes.
    fn free_memory(&self, session: WorkerId) -> u64 {
        let Some(worker) = self.workers.get(&session) else { return 0 };
        let there = self.beside_each_other(session);
        let uses = self.sched.worker_uses();
        let charged =
            uses.iter().filter(|one| there.contains(&one.worker.session)).map(|one| one.mem_used_min);
        let charged = charged.fold(0_u128, u128::saturating_add);
        let has = &worker.info.resources;
        let taken =
            charged.saturating_add(has.mem_used.into()).saturating_add(worker.beside.of_machine.into());
        u64::try_from(u128::from(has.mem_physical).saturating_sub(taken)).unwrap_or(u64::MAX)
    }

    pub(super) fn scrub_over(&mut self, session: WorkerId, number: u64) {
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.beside.scrubs.remove(&number);
            self.beside_changed(session);
        }
    }

    /// What is set aside on a worker is not there for the tasks of any worker of its machine.
    pub(super) fn beside_changed(&mut self, session: WorkerId) {
        let there = self.beside_each_other(session);
        let own = there.iter().filter_map(|one| self.workers.get(one)).map(|worker| worker.beside.own());
        let of_machine = own.fold(0, u64::saturating_add);
        for one in there {
            self.change(one, |worker| worker.beside.of_machine = of_machine);
        }
    }

    /// One that is gone has nothing set aside any more, so the others of its machine have that.
    pub(super) fn nothing_beside(&mut self, gone: &Worker) {
        let Some(machine) = gone.machine.as_ref().filter(|_| gone.beside.own() > 0) else { return };
        let there = self.workers.values().find(|worker| worker.machine.as_ref() == Some(machine));
        if let Some(session) = there.map(|worker| worker.key.session) {
            self.beside_changed(session);
        }
    }

    /// The workers of a worker's machine, itself among them.
    fn beside_each_other(&self, session: WorkerId) -> Vec<WorkerId> {
        let machine = self.workers.get(&session).and_then(|worker| worker.machine.as_ref());
        let same = |worker: &&Worker| {
            worker.key.session == session || (machine.is_some() && worker.machine.as_ref() == machine)
        };
        self.workers.values().filter(same).map(|worker| worker.key.session).collect()
    }

    /// The worker that has a path open and can look at its files.
    fn scrubber_of(&self, path: &StorageId) -> ApiResult<WorkerId> {
        let own = self.shared.local.paths().iter().any(|open| open.id == *path);
        let can = |worker: &&Worker| match worker.peer {
            Peer::Local => own,
            Peer::Sealyard => self.serves(worker, path),
            Peer::Lotus => false,
        };
        let found = self.workers.values().find(can);
        found.map(|worker| worker.key.session).ok_or_else(|| {
            ApiError::refused(format!("MGR123: no Sealyard worker that is here has storage path {path} open"))
        })
    }

    /// Keeps what was found of a sector's files on one path.
    pub(super) fn scrubbed(
        &mut self,
        sector: SectorId,
        (path, host): (StorageId, String),
        found: Vec<ScrubbedFile>,
        reply: Reply<()>,
    ) {
        for ScrubbedFile { file, verdict, detail } in found {
            if verdict.is_bad() {
                tracing::error!(%sector, %file, %path, verdict = verdict.words(), detail, "scrubbing found a bad file");
            }
            // One that was left out says nothing; what was found before stays.
            if verdict != ScrubVerdict::LeftOut {
                let (path, host) = (path.clone(), host.clone());
                self.events.push(StateEvent::FileScrubbed { sector, file, path, host, verdict, detail });
            }
        }
        self.answer(reply, Ok(()));
    }
}
