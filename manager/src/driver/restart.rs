//! The driver's beginning: the durable state becomes memory again. Sectors go on where they were; open attempts wait,
//! unscheduled, for their return or for their worker. Never: assumes that an attempt is lost because we were away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pipeline::Step;
use rpc::{ReturnMethod, Returned};
use sched::Sched;
use sealtasks::{AttemptId, CallError, ReleaseUnsealedInput, SectorId, TaskInput, TaskOutput, UnsealedRange};
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::avoiding::FailedOn;
use super::errands::{Errand, ErrandKind, MOVE, RELEASE, UNSEAL};
use super::fleet::Peer;
use super::input::Busy;
use super::liveness::Silence;
use super::resting::Failed;
use super::sectors::short_code;
use super::{Attempt, Detached, Driver, EARLY_MAX, Early, GivingUp, Phase, Task};
use crate::loading::{Loaded, LoadedSector};
use crate::request;
use crate::shared::Shared;
use crate::state::{CallRow, CallStage, OpenAttempt, OpenTask, StateError, StateEvent, TaskOutcome};

impl Driver {
    /// Reads the durable state.
    ///
    /// # Errors
    /// SQLite's, or rows that cannot be understood: a manager that does not know its sectors must not run.
    pub(crate) async fn load(shared: Arc<Shared>, loaded: Loaded) -> Result<Self, StateError> {
        let next_sector = shared.state.next_sectors().await?;
        let next_task = shared.state.next_task().await?;
        let mut driver = Self {
            // The session is random and new at every start, and so is what `random` picks.
            sched: Sched::new(shared.scheduling.options(shared.session.as_u64_pair().0)),
            sectors: BTreeMap::new(),
            tasks: BTreeMap::new(),
            bound: BTreeSet::new(),
            waited: VecDeque::new(),
            detached: BTreeMap::new(),
            moves: BTreeMap::new(),
            removed: BTreeMap::new(),
            errands: BTreeMap::new(),
            errand_failures: BTreeMap::new(),
            errands_done: BTreeMap::new(),
            calls: BTreeMap::new(),
            early: VecDeque::new(),
            workers: BTreeMap::new(),
            silence: Silence::default(),
            failed: Failed::default(),
            failed_on: FailedOn::default(),
            audit: Audit::default(),
            generations: BTreeMap::new(),
            machines: BTreeMap::new(),
            controls: shared.state.controls().await?,
            measures: shared.state.measures().await?,
            paths: BTreeMap::new(),
            timers: BTreeSet::new(),
            // The index knows them already, and counts from there.
            old_copies: (0, shared.state.superseded().await?.into_iter().collect()),
            scrubs_begun: 0,
            next_sector,
            began_ms: shared.state.now_ms(),
            next_task,
            pledging_paused: shared.state.pledging_paused().await?,
            pledging_due: true,
            wake_ms: None,
            events: vec![StateEvent::ManagerStarted { software: shared.software.clone() }],
            effects: Vec::new(),
            views: Vec::new(),
            shared,
        };
        driver.load_sectors(loaded.sectors)?;
        driver.load_failed_on().await?;
        for row in loaded.tasks {
            let keep = match row.step == RELEASE {
                true => driver.shared.state.kept_by(row.task, row.sector.id).await?,
                false => None,
            };
            driver.load_task(row, keep);
        }
        for row in driver.shared.state.detached_tasks().await? {
            driver.load_detached(row);
        }
        for hold in driver.shared.state.holds().await? {
            driver.load_hold(hold);
        }
        let orphans = driver.shared.state.orphans().await?;
        let skipped = orphans.len().saturating_sub(EARLY_MAX);
        for row in orphans.into_iter().skip(skipped) {
            driver.early.extend(early_of(row));
        }
        // What the index remembered is not news to anybody who asks it now.
        driver.shared.index_changes.forget_files();
        driver.resume();
        Ok(driver)
    }

    fn load_sectors(&mut self, sectors: Vec<LoadedSector>) -> Result<(), StateError> {
        for LoadedSector { id, is_removed, record, wanted, priority } in sectors {
            if record.is_rehearsal() != self.shared.rehearses() {
                let what = if record.is_rehearsal() { "is a REHEARSAL" } else { "is a real one" };
                let detail = format!("{id} {what}, and this manager's others are not");
                return Err(StateError::Corrupt { what: "sector record", detail });
            }
            if is_removed {
                self.removed.insert(id, *record);
                continue;
            }
            self.insert_sector(record);
            if let Some(sector) = self.sectors.get_mut(&id) {
                (sector.priority, sector.wanted) = (priority, wanted);
            }
        }
        Ok(())
    }

    fn load_task(&mut self, row: OpenTask, keep: Option<Vec<UnsealedRange>>) {
        // The input is not stored twice: the sector's record says what it waits for.
        let errand = self.errand_work(row.sector.id, &row.step, keep).map(Box::new);
        let is_errand = errand.is_some();
        let wanted = || {
            let sector = self.sectors.get_mut(&row.sector.id)?;
            // What another task is for stays for that one; where there are two of the same, both are.
            let known = sector.wanted.take_if(|work| short_code(work) == row.step);
            known.or_else(|| match sector.record.next() {
                Step::Run(work) if short_code(&work) == row.step => Some(Box::new(work)),
                _ => None,
            })
        };
        let Some(work) = errand.or_else(wanted) else { return self.load_unwanted(row) };
        let first = match request::prepare(&work) {
            // Whether it was to fetch first is not known; a fetch of what is there already does nothing.
            Some(_) => CallStage::Prepare,
            None => CallStage::Work,
        };
        let open = row.open.map(|open| Box::new(self.load_attempt(*open, first)));
        if is_errand {
            // Whoever waited for it went with the manager's earlier life.
            let kind = ErrandKind::of(&work);
            self.errands.insert(row.sector.id, Errand { task: row.task, kind, waiting: Vec::new() });
        } else {
            self.set_busy(row.sector.id, Busy::Task(row.task));
        }
        let task = Task {
            id: row.task,
            sector: row.sector,
            work,
            queued_ms: row.queued_ms,
            attempts: row.attempts,
            refusals: 0,
            disowned: row.disowned,
            priority: row.priority,
            held_back: false,
            in_line: None,
            turn: None,
            open,
        };
        if task.open.is_some() {
            self.bound.insert(row.task);
        }
        self.tasks.insert(row.task, Box::new(task));
    }

    /// Its sector waits for something else. What a worker may still do for it stays charged until that is over.
    fn load_unwanted(&mut self, row: OpenTask) {
        tracing::error!(task = %row.task, sector = %row.sector.id, step = row.step, "the sector no longer waits for this task");
        let reason = "the sector waits for something else".to_owned();
        if let Some(open) = &row.open {
            let (attempt, reason) = (open.attempt, format!("given up: {reason}"));
            self.events.push(StateEvent::AttemptDetached { attempt, reason });
        }
        let outcome = TaskOutcome::Cancelled;
        self.events.push(StateEvent::TaskEnded { task: row.task, outcome, reason });
        self.load_detached(row);
    }

    /// The work of this short code that is done beside the pipeline.
    fn errand_work(&self, id: SectorId, step: &str, keep: Option<Vec<UnsealedRange>>) -> Option<TaskInput> {
        let work = match step {
            UNSEAL => self.unseal_work(id).map(|(_, work)| work),
            MOVE => self.storing_work(id).map(|(_, work)| work),
            RELEASE => keep.map(|keep| TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep })),
            _ => None,
        };
        work.filter(|work| short_code(work) == step)
    }

    /// What its call returns with is known no more, for its sector may wait for something else by now.
    fn load_detached(&mut self, row: OpenTask) {
        let Some(open) = row.open else { return };
        let open = self.load_attempt(*open, CallStage::Work);
        let given_up = Detached { open, sector: row.sector, task_type: row.task_type, method: None };
        self.detached.insert(given_up.open.id, given_up);
    }

    /// `first` is the stage of an attempt whose call nobody knows.
    fn load_attempt(&mut self, open: OpenAttempt, first: CallStage) -> Attempt {
        // A word we do not know is a peer we know nothing of: as careful as with a Lotus worker.
        let peer = Peer::from_word(&open.peer).unwrap_or(Peer::Lotus);
        let phase = match open.calls.last() {
            None => Phase::Calling(first),
            Some(call) if call.state == "held" => Phase::Held(call.stage, call.call),
            Some(_) if peer.is_sealyard() => Phase::Ready,
            // It may have been called for the task itself, too, and would not know the same call from another.
            Some(_) => Phase::Calling(CallStage::Work),
        };
        if let Phase::Held(stage, call) = phase {
            self.calls.insert(call, (open.attempt, stage));
        }
        Attempt {
            id: open.attempt,
            worker: open.worker,
            url: open.url,
            name: open.name,
            peer,
            phase,
            staged: false,
            scheduled: false,
            unheard: true,
            bound_ms: open.bound_ms,
            accepted_ms: 0,
            accepted_at: 0,
            reservations: open.reservations,
            gpus: Vec::new(),
            giving_up: open.abort_asked.then_some(GivingUp::Abort),
            over: CancellationToken::new(),
            lock: None,
        }
    }

    /// Sets everything going again that needs no worker to come back first.
    fn resume(&mut self) {
        let waiting = self.tasks.values_mut().filter(|task| task.open.is_none());
        let mut waiting: Vec<_> = waiting
            .map(|task| {
                task.held_back = true;
                task.id
            })
            .collect();
        let of_tasks = self.tasks.values().any(|task| task.priority.is_some());
        if of_tasks || self.sectors.values().any(|sector| sector.priority != 0) {
            waiting.sort_by_cached_key(|task| std::cmp::Reverse(self.asking().priority(*task)));
        }
        self.waited = waiting.into();
        let open: Vec<_> = self.open_attempts().map(|(_, open)| open.id).collect();
        let now_ms = self.now_ms();
        let given_up: Vec<_> = self.detached.keys().copied().collect();
        self.silence.away.extend(given_up.into_iter().map(|attempt| (attempt, now_ms)));
        for attempt in open {
            self.silence.away.insert(attempt, now_ms);
            self.lock_found(attempt);
            self.adopt_early(attempt);
        }
        let idle = self.sectors.iter_mut().filter_map(|(id, sector)| {
            // Whoever has no task makes what it wants of its record.
            sector.wanted = None;
            (!matches!(sector.busy, Busy::Task(_))).then_some(*id)
        });
        for sector in idle.collect::<Vec<_>>() {
            self.advance(sector);
        }
        self.redial_workers();
    }
}

impl Driver {
    /// Gives the scheduler some more of the tasks that waited before the start, those that go first before the others. All
    /// of a million at once would hold up whatever a worker or an operator asks meanwhile.
    pub(super) fn submit_waited(&mut self) {
        const AT_ONCE: usize = 2_000;
        if self.shared.recovered.is_cancelled() {
            return;
        }
        let mut next: Vec<_> = self.waited.drain(..AT_ONCE.min(self.waited.len())).collect();
        // Whoever waited for something else has been given up or submitted meanwhile.
        next.retain(|id| self.tasks.get(id).is_some_and(|task| task.held_back && task.in_line.is_none()));
        let requests = self.asking().requests(&next);
        for (id, request) in next.into_iter().zip(requests) {
            self.submit_as(id, request);
        }
        if self.waited.is_empty() {
            tracing::info!(tasks = self.tasks.len(), "everything that was under way goes on");
            self.shared.recovered.cancel();
        }
    }
}

fn early_of(row: CallRow) -> Option<Early> {
    let kept: Kept = serde_json::from_str(&row.result)
        .inspect_err(|error| tracing::error!(call = %row.call, %error, "a kept result cannot be read"))
        .ok()?;
    let method = ReturnMethod::ALL.into_iter().find(|method| method.short_name() == kept.method)?;
    let returned = Returned { method, result: kept.result, attempt: kept.attempt, account: None };
    Some(Early { call: row.call, returned, at_ms: row.returned_ms })
}

/// How a result that nobody asked for is kept.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Kept {
    pub(super) method: String,
    pub(super) attempt: Option<AttemptId>,
    pub(super) result: Result<TaskOutput, CallError>,
}
