//! Workers: registration, heartbeats, what they report; and what becomes of the attempts of one that is replaced.
//! Never: dials anybody (see `workers`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpc::api::WorkerInfo;
use rpc::extension::{MachineIdentity, ThreadState, WorkerState};
use rpc::operator::WorkerMode;
use rpc::{ApiError, WorkerApi};
use sched::{Event, KindDuration, Millis, PathBytes, ResourceRow, WorkerKey, WorkerProfile};
use sealtasks::{AttemptId, CallId, SealingPlan, StorageId, TaskCaps, TaskType, WorkerId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempts::told_shares;
use super::control::{core_mode, limit};
use super::input::{Effect, Polled, Reply};
use super::scrubbing::Beside;
use super::threads::path_plans;
use super::{Driver, GivingUp, Phase};
use crate::state::{CallStage, StateEvent};
use crate::workers::{Introduction, running_calls};

/// What kind of worker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A Sealyard on another machine or in another process.
    Sealyard,
    /// A Lotus worker.
    Lotus,
    /// The manager's own.
    Local,
}

impl Peer {
    /// The word in the durable state and in listings.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Sealyard => "sealyard",
            Self::Lotus => "lotus",
            Self::Local => "local",
        }
    }

    /// The peer with this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Sealyard, Self::Lotus, Self::Local].into_iter().find(|peer| peer.word() == word)
    }

    /// Whether it knows our extensions.
    pub(crate) const fn is_sealyard(self) -> bool {
        match self {
            Self::Sealyard | Self::Local => true,
            Self::Lotus => false,
        }
    }
}

/// A registered worker.
pub(crate) struct Worker {
    pub(crate) key: WorkerKey,
    pub(crate) url: String,
    pub(crate) peer: Peer,
    /// The id of its own token, if it joined with one.
    pub(crate) token: Option<Uuid>,
    pub(crate) api: Arc<dyn WorkerApi>,
    pub(crate) info: WorkerInfo,
    pub(crate) tasks: BTreeSet<TaskType>,
    pub(crate) pending: BTreeMap<TaskType, String>,
    /// What it offers and is not given, and why; see `resting`.
    pub(crate) resting: BTreeMap<TaskType, String>,
    pub(crate) paths: Vec<StorageId>,
    /// Which sectors it takes where no thread says otherwise.
    pub(crate) plan: SealingPlan,
    /// Its storage paths for sealing, and which sectors may begin there.
    pub(crate) threads: Vec<ThreadState>,
    /// It says itself that it takes tasks.
    pub(crate) enabled: bool,
    /// Heartbeats missed in a row.
    pub(crate) misses: u32,
    /// When it missed the first of them, and when it became lost, in Unix milliseconds; of no meaning without.
    pub(crate) silent_since_ms: u64,
    pub(crate) lost_since_ms: u64,
    /// What an operator allows it.
    pub(crate) mode: WorkerMode,
    /// Limits that it was started with.
    pub(crate) own_caps: TaskCaps,
    /// Limits in force: its own, the configured ones, and those that operators set.
    pub(crate) caps: TaskCaps,
    /// Memory that what is done beside tasks has.
    pub(crate) beside: Beside,
    /// The least time between two starts of a type.
    pub(crate) stagger: BTreeMap<TaskType, Millis>,
    /// The machine that it says it runs on.
    pub(crate) told_machine: Option<MachineIdentity>,
    /// Its repo's own id, by which it is known at another address; a Lotus worker has none.
    pub(crate) repo: Option<Uuid>,
    /// The machine with which it shares resources, as the scheduler knows it.
    pub(crate) machine: Option<String>,
    /// How long tasks took here before it registered.
    pub(crate) durations: Vec<KindDuration>,
    /// Bytes per second at which it fetches; 0 = not known.
    pub(crate) bandwidth: u64,
    /// Cancelled when it is gone.
    pub(crate) gone: CancellationToken,
    /// Cancelled when its heartbeat is no longer asked for here.
    pub(crate) watching: CancellationToken,
}

impl Worker {
    pub(crate) fn name(&self) -> &str {
        &self.info.hostname
    }

    /// Whether all of this is known of it: so it is with nearly every heartbeat of a fleet that has nothing to do.
    fn has_said(&self, state: &WorkerState) -> bool {
        let has = &self.info.resources;
        self.misses == 0
            && self.enabled == state.enabled
            && (has.mem_used, has.mem_swap_used) == (state.mem_used, state.mem_swap_used)
            && self.beside.told == state.mem_beside
            && self.tasks == state.tasks
            && self.pending == state.pending
            && self.paths == state.paths
            && (self.plan, &self.threads) == (state.plan, &state.threads)
    }

    fn profile(&self) -> WorkerProfile {
        let has = &self.info.resources;
        let rows = has.table.iter().flat_map(|table| table.rows());
        let mut profile = WorkerProfile {
            host: self.info.hostname.clone(),
            is_local: self.peer == Peer::Local,
            tasks: self.tasks.iter().filter(|task| !self.resting.contains_key(task)).copied().collect(),
            resources: rows.map(|(task, proof, resources)| ResourceRow { task, proof, resources }).collect(),
            mem_physical: has.mem_physical.saturating_sub(self.beside.of_machine),
            mem_swap: has.mem_swap,
            mem_used: has.mem_used,
            swap_used: has.mem_swap_used,
            cpus: has.cpus,
            gpus: has.gpus.clone(),
            pending: self
                .pending
                .iter()
                .chain(&self.resting)
                .map(|(task, why)| (*task, why.clone()))
                .collect(),
            durations: self.durations.clone(),
            bandwidth: self.bandwidth,
            ignore_resources: self.info.ignore_resources,
            paths: self.paths.clone(),
            plan: self.plan,
            path_plans: path_plans(self),
            stagger: self.stagger.clone(),
            machine: self.machine.clone(),
            ..WorkerProfile::default()
        };
        limit(&mut profile, &self.caps);
        profile
    }
}

/// What becomes of an open attempt when a worker that may hold it registers.
enum Fate {
    /// It is there.
    Adopt,
    /// It may not have arrived: the same call is made again.
    CallAgain,
    /// It is lost, and never ran.
    Requeue(&'static str),
    /// It is lost with the worker that had it.
    Disown(&'static str),
    /// It has nothing to do with this worker, or nothing can be said yet.
    Leave,
}

impl Driver {
    pub(super) fn registered(&mut self, introduction: Introduction, reply: Reply<()>) {
        self.join(introduction);
        self.answer(reply, Ok(()));
    }

    /// The worker is one of ours from now on, in place of any that it replaces.
    pub(super) fn join(&mut self, introduction: Introduction) {
        let session = introduction.session;
        let replaced: Vec<_> = self
            .workers
            .values()
            .filter(|known| known.key.session != session && introduction.replaces(&known.url, known.peer))
            .map(|known| known.key.session)
            .collect();
        let fates = self.fates(&introduction);
        let brings_work = fates.iter().any(|(_, fate)| matches!(fate, Fate::Adopt | Fate::CallAgain));
        let running = introduction.running();
        let key = self.key_for(session);
        let quiet = self.proven_quiet(&introduction);
        let mut worker = introduction.into_worker(key);
        self.recall(&mut worker);
        self.equip(&mut worker);
        worker.resting = self.resting_of(session);
        tracing::info!(worker = worker.name(), %session, url = worker.url, peer = worker.peer.word(), "registered");
        let (api, peer, stop) = (worker.api.clone(), worker.peer, worker.watching.clone());
        if let Some(known) = self.workers.get(&session) {
            // The same worker again, perhaps at another address: it is watched there, and calls under way go on.
            known.watching.cancel();
            worker.gone = known.gone.clone();
        }
        self.is_here_again(&worker.info.hostname);
        let was_known = self.workers.contains_key(&session);
        // What it runs is charged before it is given more.
        let waits = brings_work && !was_known;
        let is_given = worker.enabled && !waits;
        self.tell_registered(&worker, was_known, is_given);
        let before = self.workers.insert(session, worker);
        self.beside_changed(session);
        if let Some(before) = before {
            self.nothing_beside(&before);
        }
        self.effects.push(Effect::Watch { session, api, peer, stop });
        // Before anything is queued again, or it would be bound to the one that is gone.
        for gone in replaced {
            self.worker_gone(gone, "it registered again under another session");
        }
        for (attempt, fate) in fates {
            self.decide(attempt, session, fate);
        }
        if waits {
            self.may_be_given_work(session);
        }
        for attempt in quiet {
            self.end_detached(attempt, "given up; its worker has registered since, and so is quiet");
        }
        self.stop_fenced(session, running);
    }

    /// Tells the scheduler of a worker that registers. One that may not have everything offers nothing until the
    /// scheduler knows what it may have, and one that is not `enabled` is given nothing until it is.
    fn tell_registered(&mut self, registered: &Worker, was_known: bool, enabled: bool) {
        let (worker, mode) = (registered.key, core_mode(registered.mode));
        let profile = registered.profile();
        if !was_known && enabled && registered.mode == WorkerMode::Open {
            return self.tell_sched(Event::WorkerUp { worker, profile });
        }
        if !was_known {
            let profile = WorkerProfile { tasks: Vec::new(), ..profile.clone() };
            self.tell_sched(Event::WorkerUp { worker, profile });
        }
        self.tell_sched(Event::WorkerEnabled { worker, enabled });
        self.tell_sched(Event::WorkerMode { worker, mode });
        self.tell_sched(Event::WorkerSuspect { worker, suspect: false });
        self.tell_sched(Event::WorkerChanged { worker, profile });
    }

    /// What it brought has been charged.
    fn may_be_given_work(&mut self, session: WorkerId) {
        let Some(known) = self.workers.get(&session) else { return };
        let (worker, enabled) = (known.key, known.enabled);
        self.tell_sched(Event::WorkerEnabled { worker, enabled });
    }

    /// Work that runs for an attempt that is over is of no use to anybody, and holds its machine.
    fn stop_fenced(&mut self, session: WorkerId, running: Vec<(AttemptId, CallId)>) {
        let Some(api) = self.workers.get(&session).map(|worker| worker.api.clone()) else { return };
        for (attempt, call) in running {
            if self.open_mut(attempt).is_none() {
                tracing::warn!(%attempt, %call, "a worker runs an attempt that is over; it is told to stop");
                self.effects.push(Effect::Abort { api: api.clone(), attempt, call });
            }
        }
    }

    fn key_for(&mut self, session: WorkerId) -> WorkerKey {
        if let Some(known) = self.workers.get(&session) {
            return known.key;
        }
        let next = self.generations.get(&session).map_or(0, |last| last.saturating_add(1));
        self.generations.insert(session, next);
        WorkerKey { session, generation: next }
    }

    fn fates(&self, introduction: &Introduction) -> Vec<(AttemptId, Fate)> {
        self.open_attempts().map(|(_, attempt)| (attempt.id, self.fate(attempt, introduction))).collect()
    }

    fn fate(&self, attempt: &super::Attempt, introduction: &Introduction) -> Fate {
        let held = introduction.held(
            attempt.id,
            match attempt.phase {
                Phase::Held(_, call) => Some(call),
                Phase::Calling(_) | Phase::Ready => None,
            },
        );
        let same_session = attempt.worker == introduction.session;
        if introduction.was_redialled() {
            // It is busy, with what the durable state says that it took.
            let took = same_session && matches!(attempt.phase, Phase::Held(..));
            return if took { Fate::Adopt } else { Fate::Leave };
        }
        // One that was gone has lost its slots with the scheduler, although its session is the same.
        let stays_bound = same_session && attempt.scheduled && self.workers.contains_key(&attempt.worker);
        if held {
            return match attempt.phase {
                // It has the call, and we do not know which: the same call again tells.
                Phase::Calling(_) if attempt.unheard && attempt.peer.is_sealyard() => Fate::CallAgain,
                _ if stays_bound => Fate::Leave,
                _ => Fate::Adopt,
            };
        }
        if !same_session && !introduction.replaces(&attempt.url, attempt.peer) {
            return Fate::Leave;
        }
        // A worker that we know already says what it held when it was asked: what began later is not in its answer.
        let asked_before = attempt.accepted_at > introduction.asked_at;
        // A Lotus worker registers again only when it is quiet, but for a repeated request of the same registration. What it
        // took in an earlier life of this manager, and was believed to have when it was dialled, it does not have then.
        let of_earlier_life = matches!(attempt.phase, Phase::Held(..)) && attempt.accepted_at == 0;
        if same_session && attempt.scheduled && !introduction.tells_calls() && !of_earlier_life {
            return Fate::Leave;
        }
        match attempt.phase {
            Phase::Held(..) if asked_before => Fate::Leave,
            Phase::Held(..) => Fate::Disown("its worker came back without it"),
            Phase::Calling(_) if same_session && attempt.scheduled && !attempt.unheard => Fate::Leave,
            Phase::Calling(_) if same_session && attempt.peer.is_sealyard() => Fate::CallAgain,
            Phase::Calling(_) => Fate::Requeue("its worker came back and does not have it"),
            Phase::Ready if stays_bound => Fate::Leave,
            Phase::Ready => Fate::Requeue("its worker came back before it could run"),
        }
    }

    fn decide(&mut self, attempt: AttemptId, session: WorkerId, fate: Fate) {
        match fate {
            Fate::Leave => {}
            Fate::Requeue(reason) => self.requeue(attempt, reason),
            Fate::Disown(reason) => self.disowned(attempt, reason),
            Fate::Adopt => self.adopt(attempt, session),
            Fate::CallAgain => {
                self.adopt(attempt, session);
                let stage = match self.open_mut(attempt).map(|open| open.phase) {
                    Some(Phase::Calling(stage)) => stage,
                    Some(Phase::Held(..) | Phase::Ready) | None => return,
                };
                self.take_charged_gpus(attempt);
                self.call(attempt.task, stage);
            }
        }
    }

    /// The attempt is with this worker, whatever session it was bound under.
    fn adopt(&mut self, attempt: AttemptId, session: WorkerId) {
        let Some(worker) = self.workers.get(&session) else { return };
        let (key, name, url, peer) = (worker.key, worker.name().to_owned(), worker.url.clone(), worker.peer);
        let request = self.asking().request(attempt.task);
        self.lock_found(attempt);
        let Some(open) = self.open_mut(attempt) else { return };
        open.scheduled = true;
        (open.worker, open.name, open.url, open.peer) = (session, name.clone(), url.clone(), peer);
        // The scheduler adopts it as running, so it is no longer staged, and its staging cannot be given up.
        open.staged = false;
        open.giving_up = open.giving_up.filter(|why| *why == GivingUp::Abort);
        let holds = open
            .reservations
            .iter()
            .map(|space| PathBytes { path: space.path.clone(), bytes: space.bytes })
            .collect();
        let (ready, aborted) = (open.phase == Phase::Ready, open.giving_up.is_some());
        self.silence.away.remove(&attempt);
        tracing::info!(%attempt, worker = name, "found again");
        self.events.push(StateEvent::AttemptAdopted { attempt, worker: session, name, url });
        // An attempt that is bound already moves to its worker's successor by the same event.
        if let Some(mut request) = request {
            request.attempts = attempt.attempt.saturating_sub(1);
            self.tell_sched(Event::Adopt { attempt, worker: key, request, holds });
        }
        if aborted {
            // It was to end, and its worker may never have been told.
            return self.give_up(attempt, GivingUp::Abort);
        }
        if ready {
            self.take_charged_gpus(attempt);
            self.call(attempt.task, CallStage::Work);
        }
    }

    /// After a restart only the scheduler, which has adopted the attempt, knows which GPUs are its own.
    fn take_charged_gpus(&mut self, attempt: AttemptId) {
        let bound = self.sched.snapshot().bound;
        let charged =
            bound.iter().find(|bound| bound.attempt == attempt).map(|bound| told_shares(&bound.gpus));
        if let (Some(open), Some(gpus)) = (self.open_mut(attempt), charged) {
            open.gpus = gpus;
        }
    }

    pub(super) fn worker_state(&mut self, state: WorkerState, reply: Option<Reply<()>>) {
        let Some(worker) = self.workers.get_mut(&state.session) else {
            let message =
                format!("MGR025: session {} is not registered; call WorkerConnect first", state.session);
            if let Some(reply) = reply {
                self.answer(reply, Err(ApiError::refused(message)));
            }
            return;
        };
        let (session, running) = (state.session, running_calls(&state));
        if !worker.has_said(&state) {
            let before = (worker.profile(), worker.enabled, worker.misses);
            let told = std::mem::replace(&mut worker.beside.told, state.mem_beside);
            worker.tasks = state.tasks;
            worker.pending = state.pending;
            worker.enabled = state.enabled;
            worker.info.resources.mem_used = state.mem_used;
            worker.info.resources.mem_swap_used = state.mem_swap_used;
            worker.paths = state.paths;
            (worker.plan, worker.threads) = (state.plan, state.threads);
            worker.misses = 0;
            self.tell_changes(session, &before);
            if told != state.mem_beside {
                self.beside_changed(session);
            }
        }
        // It may have accepted a call only after the attempt was given up.
        self.stop_fenced(session, running);
        if let Some(reply) = reply {
            self.answer(reply, Ok(()));
        }
    }

    pub(super) fn worker_polled(&mut self, session: WorkerId, polled: Polled) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        let before = (worker.profile(), worker.enabled, worker.misses);
        worker.tasks = polled.tasks;
        worker.paths = polled.paths.into_iter().map(|path| path.id).collect();
        worker.info = polled.info;
        worker.enabled = polled.enabled;
        worker.misses = 0;
        self.tell_changes(session, &before);
    }

    /// Changes a worker, and tells the scheduler what is other than it was.
    pub(super) fn change(&mut self, session: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        let before = (worker.profile(), worker.enabled, worker.misses);
        change(worker);
        self.tell_changes(session, &before);
    }

    /// Tells the scheduler what is other than it was: profile, own word, heartbeats.
    fn tell_changes(&mut self, session: WorkerId, before: &(WorkerProfile, bool, u32)) {
        let Some(worker) = self.workers.get(&session) else { return };
        let (key, profile) = (worker.key, worker.profile());
        let (enabled, suspect) = (worker.enabled, worker.misses > 0);
        let (was_enabled, was_suspect) = (before.1, before.2 > 0);
        // What takes work away comes before the profile, what brings it after: nothing is bound in between.
        if suspect && !was_suspect {
            self.tell_sched(Event::WorkerSuspect { worker: key, suspect });
        }
        if was_enabled && !enabled {
            self.tell_sched(Event::WorkerEnabled { worker: key, enabled });
        }
        if profile != before.0 {
            self.tell_sched(Event::WorkerChanged { worker: key, profile });
        }
        if enabled && !was_enabled {
            self.tell_sched(Event::WorkerEnabled { worker: key, enabled });
        }
        if was_suspect && !suspect {
            self.tell_sched(Event::WorkerSuspect { worker: key, suspect });
        }
    }
}
