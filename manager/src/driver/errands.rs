//! Errands: tasks that an operator or a reader wants of a sector beside its pipeline, unsealing it and releasing unsealed
//! data. At most one per sector; whoever wants the same joins it. Their input follows from the sector's record, but for
//! the ranges to keep, so that unsealing goes on after a restart. Never: retried by itself.

use std::sync::Arc;

use pipeline::{Rest, Step};
use rpc::unsealing::{UnsealState, UnsealView};
use rpc::{ApiError, ApiResult, WorkerApi};
use sealtasks::{
    FileType, FileTypes, MoveInput, ReleaseUnsealedInput, SectorId, SectorRef, SpaceTable, StorageId, TaskId,
    TaskInput, TaskOutput, TaskType, UnpaddedOffset, UnpaddedPieceSize, UnsealInput, UnsealedRange,
};
use tokio::sync::oneshot;

use super::input::Reply;
use super::sectors::short_code;
use super::{Driver, Peer, Task, Worker};
use crate::state::StateEvent;

/// Most callers that wait for the end of one errand; beyond, they are told to come again.
const WAITING_MAX: usize = 1024;

/// Told how an errand ended.
pub(crate) type Ended = oneshot::Sender<Result<(), String>>;

/// The step of a task that frees unsealed data.
pub(super) const RELEASE: &str = "FUS";
/// And of one that unseals.
pub(super) const UNSEAL: &str = "UNS";
/// And of one that stores what was unsealed.
pub(super) const MOVE: &str = "MOVE";

/// An errand that has not ended.
pub(super) struct Errand {
    pub(super) task: TaskId,
    pub(super) kind: ErrandKind,
    pub(super) waiting: Vec<Ended>,
}

/// What an errand is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrandKind {
    /// Making unsealed data.
    Unseal,
    /// Bringing it into long-term storage.
    Store,
    /// Giving its space back.
    Release,
}

impl ErrandKind {
    pub(super) const fn of(work: &TaskInput) -> Self {
        match work {
            TaskInput::Unseal(_) => Self::Unseal,
            TaskInput::ReleaseUnsealed(_) => Self::Release,
            _ => Self::Store,
        }
    }
}

impl Driver {
    /// Has a sector unsealed as a whole: it takes as long as for a part.
    pub(super) fn unseal(&mut self, id: SectorId, ended: Option<Ended>, reply: Reply<UnsealView>) {
        let begun = self.wanted_unseal(id).and_then(|(sector, work)| self.run_errand(sector, work, ended));
        let answer = begun.map(|()| self.errand_view(id));
        self.answer(reply, answer);
    }

    /// Has unsealed data released but for what is to be kept.
    pub(super) fn release_unsealed(
        &mut self,
        id: SectorId,
        keep: Vec<UnsealedRange>,
        reply: Reply<UnsealView>,
    ) {
        let begun =
            self.wanted_release(id, keep).and_then(|(sector, work)| self.run_errand(sector, work, None));
        let answer = begun.map(|()| self.errand_view(id));
        self.answer(reply, answer);
    }

    fn wanted_unseal(&self, id: SectorId) -> ApiResult<(SectorRef, TaskInput)> {
        let number = self.shared.name(id);
        let work = self.unseal_work(id).ok_or_else(|| match self.sectors.contains_key(&id) {
            false => self.shared.no_sector(id),
            true => ApiError::refused(format!(
                "MGR080: sector {number} has no replica yet to unseal; its data is where AddPiece put it"
            )),
        })?;
        for kind in [FileType::Sealed, FileType::Cache] {
            if !self.is_held(id, kind) {
                return Err(ApiError::refused(format!(
                    "MGR081: sector {number} cannot be unsealed: no path that is known now holds its {kind} file; attach \
                     the path that does, or bring its worker back"
                )));
            }
            if !self.is_within_reach(id, kind) {
                return Err(ApiError::refused(format!(
                    "MGR148: sector {number} cannot be unsealed now: no path with its {kind} file is in order; \
                     `sealyard storage find {number}` names them, `sealyard storage list` shows what is wrong"
                )));
            }
        }
        self.offered(TaskType::Unseal, "--unseal")?;
        Ok(work)
    }

    fn wanted_release(&self, id: SectorId, keep: Vec<UnsealedRange>) -> ApiResult<(SectorRef, TaskInput)> {
        let number = self.shared.name(id);
        let Some(record) = self.sectors.get(&id).map(|known| &known.record) else {
            return Err(self.shared.no_sector(id));
        };
        let sector = record.sector();
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        for range in &keep {
            let end = range.offset.get().checked_add(range.size).filter(|end| *end <= whole);
            if range.size == 0 || !range.size.is_multiple_of(127) || end.is_none() {
                return Err(ApiError::refused(format!(
                    "MGR082: keep {} bytes from {} on: expected a multiple of 127 within the sector's {whole} bytes",
                    range.size,
                    range.offset.get()
                )));
            }
        }
        // A step that fails may send it back to PreCommit1, which starts from this data.
        if !matches!(
            record.next(),
            Step::Done | Step::Rest { why: Rest::StoppedAfterPc2 | Rest::StoppedAfterC1 }
        ) {
            return Err(ApiError::refused(format!(
                "MGR110: unsealed data of sector {number} is kept: it is still being sealed ({}), and a step that fails may \
                 need the data once more; release it when it is done",
                record.shown_state()
            )));
        }
        let sealed = [FileType::Sealed, FileType::Cache].into_iter().all(|kind| self.is_held(id, kind));
        if !sealed || self.unseal_work(id).is_none() {
            return Err(ApiError::refused(format!(
                "MGR083: unsealed data of sector {number} is kept: no replica is known from which it could be made again"
            )));
        }
        if !self.is_held(id, FileType::Unsealed) {
            return Err(ApiError::refused(format!(
                "MGR084: sector {number} has no unsealed data to release"
            )));
        }
        // A worker with bare flags, as in 2020, offers it never.
        self.offered(TaskType::FinalizeUnsealed, "task flags that have values, such as --unseal=true")?;
        Ok((sector, TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep })))
    }

    /// What unsealing a sector is, if it has been sealed.
    pub(crate) fn unseal_work(&self, id: SectorId) -> Option<(SectorRef, TaskInput)> {
        let record = &self.sectors.get(&id)?.record;
        let (sector, progress) = (record.sector(), record.progress());
        let whole = UnpaddedPieceSize::whole_sector(sector.proof.sector_size()).get();
        let offset = UnpaddedOffset::try_from(0).ok()?;
        let input = UnsealInput {
            range: UnsealedRange { offset, size: whole },
            ticket: progress.ticket?.value,
            unsealed: progress.cids?.unsealed,
        };
        Some((sector, TaskInput::Unseal(input)))
    }

    fn is_held(&self, id: SectorId, kind: FileType) -> bool {
        self.shared.index.sector_files(id).iter().any(|held| held.types.contains(kind))
    }

    /// Whether a path that is in order holds the file.
    fn is_within_reach(&self, id: SectorId, kind: FileType) -> bool {
        let index = &self.shared.index;
        let mut holders = index.sector_files(id).into_iter().filter(|held| held.types.contains(kind));
        holders.any(|held| index.path_view(&held.id).is_some_and(|path| path.healthy))
    }

    fn offered(&self, task: TaskType, how: &str) -> ApiResult<()> {
        let offers =
            |worker: &super::Worker| worker.enabled && !worker.is_lost() && worker.tasks.contains(&task);
        if self.workers.values().any(offers) {
            return Ok(());
        }
        let code = task.short();
        Err(ApiError::refused(format!(
            "MGR085: no worker that is here does {code}; start one with {how}, or see `sealyard workers list`"
        )))
    }

    /// A worker that computes commitments of pieces, with its name; the manager's own first.
    pub(crate) fn hasher(&self) -> ApiResult<(String, Arc<dyn WorkerApi>)> {
        self.offered(TaskType::DataCid, "task flags that have values, such as --unseal=true")?;
        let offers = |worker: &&Worker| worker.enabled && worker.tasks.contains(&TaskType::DataCid);
        let able = self.workers.values().filter(offers).min_by_key(|worker| worker.peer != Peer::Local);
        // One was seen this moment.
        able.map(|worker| (worker.name().to_owned(), worker.api.clone())).ok_or_else(crate::service::stopping)
    }

    fn run_errand(&mut self, sector: SectorRef, work: TaskInput, ended: Option<Ended>) -> ApiResult<()> {
        let id = sector.id;
        if let Some(errand) = self.errands.get_mut(&id) {
            let same = self.tasks.get(&errand.task).is_some_and(|task| *task.work == work);
            if !same {
                let task = errand.task;
                return Err(ApiError::refused(format!(
                    "MGR086: task {task} of sector {} must end first; `sealing jobs` shows it",
                    self.shared.name(id)
                )));
            }
            errand.waiting.retain(|waiting| !waiting.is_closed());
            if errand.waiting.len() >= WAITING_MAX {
                return Err(ApiError::refused("MGR087: too many wait for this sector; try again later"));
            }
            errand.waiting.extend(ended);
            return Ok(());
        }
        self.errand_failures.remove(&id);
        let keep = match &work {
            TaskInput::ReleaseUnsealed(input) => Some(input.keep.clone()),
            _ => None,
        };
        if keep.as_ref().is_some_and(Vec::is_empty) {
            self.permit_release(id);
        }
        let kind = ErrandKind::of(&work);
        let task = self.new_task(sector, work)?;
        // All other inputs follow from the record.
        self.events.extend(keep.map(|keep| StateEvent::ReleaseAsked { task, keep }));
        self.errands.insert(id, Errand { task, kind, waiting: ended.into_iter().collect() });
        self.submit(task);
        Ok(())
    }

    /// The last copies go by a permit that is durable before anything is deleted.
    fn permit_release(&mut self, sector: SectorId) {
        let file = FileType::Unsealed;
        for held in self.shared.index.sector_files(sector) {
            if held.types.contains(file) {
                let reason = "an operator released it, and a replica is known".to_owned();
                self.events.push(StateEvent::DeletePermitted { sector, file, path: held.id, reason });
            }
        }
    }

    /// The task of an errand that has ended, one way or the other.
    pub(super) fn errand_over(&mut self, id: SectorId, result: Result<(), String>) {
        let Some(errand) = self.errands.remove(&id) else { return };
        match &result {
            Ok(()) => {
                tracing::info!(sector = %id, task = %errand.task, "done beside the pipeline");
                if errand.kind != ErrandKind::Store {
                    self.errands_done.insert(id, errand.task);
                }
                if errand.kind == ErrandKind::Unseal {
                    self.store_unsealed(id);
                }
            }
            Err(reason) => {
                tracing::warn!(sector = %id, task = %errand.task, reason, "failed beside the pipeline");
                self.errand_failures.insert(id, reason.clone());
            }
        }
        // Told once the end is durable.
        self.effects.push(super::Effect::Answer(Box::new(move || {
            for waiting in errand.waiting {
                // Whoever asked may have gone.
                let _ = waiting.send(result.clone());
            }
        })));
    }

    /// Unsealed data that lies where sectors are sealed goes into long-term storage, as Lotus has it; whoever waited for it
    /// need not wait for that. Without a path that could take it, it stays where it is.
    fn store_unsealed(&mut self, id: SectorId) {
        let files = self.shared.index.sector_files(id).into_iter();
        let mut holders = files.filter(|held| held.types.contains(FileType::Unsealed)).peekable();
        let stored = |path: &StorageId| {
            self.shared.index.path_view(path).is_some_and(|view| view.info.stanza.can_store)
        };
        if holders.peek().is_none() || holders.any(|held| stored(&held.id)) {
            return;
        }
        let Some((sector, work)) = self.storing_work(id) else { return };
        let bytes = SpaceTable::Finalized.bytes(FileTypes::UNSEALED, sector.proof.sector_size());
        let takes = |path: &stores::PathView| {
            let stanza = &path.info.stanza;
            let room = u64::try_from(path.stat.available).unwrap_or(0) >= bytes;
            path.healthy && stanza.can_store && stanza.weight > 0 && room
        };
        if !self.shared.index.paths().iter().any(takes) {
            return tracing::warn!(sector = %id, "unsealed data stays where it was made: no path for storing takes it");
        }
        match self.new_task(sector, work) {
            Ok(task) => {
                self.errands.insert(id, Errand { task, kind: ErrandKind::Store, waiting: Vec::new() });
                self.submit(task);
            }
            Err(error) => tracing::error!(sector = %id, %error, "unsealed data is not moved into storage"),
        }
    }

    /// What brings a sector's unsealed file into long-term storage; `None` while the pipeline has not done with the sector.
    pub(super) fn storing_work(&self, id: SectorId) -> Option<(SectorRef, TaskInput)> {
        let record = &self.sectors.get(&id)?.record;
        if !matches!(record.next(), Step::Done | Step::Rest { why: Rest::StoppedAfterC1 }) {
            return None;
        }
        Some((record.sector(), TaskInput::Move(MoveInput { types: FileTypes::UNSEALED })))
    }

    /// How it goes; whether the sector is unsealed is for whoever looks at the files to say.
    pub(crate) fn errand_view(&self, id: SectorId) -> UnsealView {
        let task = self.errands.get(&id).map(|errand| errand.task);
        let error = self.errand_failures.get(&id).cloned();
        let state = match (task, &error) {
            (Some(_), _) => UnsealState::UnderWay,
            (None, Some(_)) => UnsealState::Failed,
            (None, None) => UnsealState::NotUnsealed,
        };
        let done = self.errands_done.get(&id).copied();
        UnsealView { sector: self.shared.name(id), state, task, done, error }
    }

    /// The sector as it is sealed, if it is here.
    pub(crate) fn sector_ref(&self, id: SectorId) -> Option<SectorRef> {
        self.sectors.get(&id).map(|sector| sector.record.sector())
    }

    /// Enters a task; the caller submits it.
    pub(super) fn new_task(&mut self, sector: SectorRef, work: TaskInput) -> ApiResult<TaskId> {
        let id = TaskId::new(self.next_task);
        // 2^63 tasks are not reached: at a million a second it takes 290 000 years.
        self.next_task = self.next_task.saturating_add(1);
        let Some(task_type) = work.task_type() else {
            tracing::error!(sector = %sector.id, "verification is no scheduled task");
            return Err(ApiError::refused("verification is no scheduled task"));
        };
        let step = short_code(&work).to_owned();
        self.events.push(StateEvent::TaskSubmitted { task: id, sector, task_type, step });
        let queued_ms = self.now_ms();
        let task = Task {
            id,
            sector,
            work: Box::new(work),
            queued_ms,
            attempts: 0,
            refusals: 0,
            disowned: 0,
            priority: None,
            held_back: false,
            in_line: None,
            turn: None,
            open: None,
        };
        self.tasks.insert(id, Box::new(task));
        if let Some(known) = self.sectors.get_mut(&sector.id) {
            known.steps = known.steps.saturating_add(1);
        }
        Ok(id)
    }
}

impl Task {
    /// Whether it is no step of its sector's pipeline, which never asks for these.
    pub(super) fn is_errand(&self) -> bool {
        match &*self.work {
            TaskInput::Unseal(_) | TaskInput::ReleaseUnsealed(_) => true,
            TaskInput::Move(input) => input.types == FileTypes::UNSEALED,
            _ => false,
        }
    }

    /// Whether this is what the errand was to give.
    pub(super) fn is_answered_by(&self, output: &TaskOutput) -> bool {
        matches!(
            (&*self.work, output),
            (TaskInput::Unseal(_), TaskOutput::Unseal)
                | (TaskInput::ReleaseUnsealed(_), TaskOutput::ReleaseUnsealed)
                | (TaskInput::Move(_), TaskOutput::Move)
        )
    }
}
