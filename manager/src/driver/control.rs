//! What operators allow workers and machines: modes and limits, found by name, told to the scheduler, kept. Never: what
//! becomes of a task because of it; that is the scheduler's.

use std::collections::BTreeSet;

use rpc::ApiError;
use rpc::api::ApiResult;
use rpc::extension::MachineIdentity;
use rpc::operator::{CapsTarget, CapsView, NOWHERE_MAX, RestTask, WorkerMode, WorkerRest, is_meant};
use sched::{Event, GroupCap, WorkerKey, WorkerProfile};
use sealtasks::{CapSpec, SectorId, StorageId, TaskCaps, TaskGroup, WorkerId};

use uuid::Uuid;

use super::caps::Uses;
use super::fleet::Worker;
use super::input::{Busy, Reply};
use super::{Driver, Phase};
use crate::state::{
    CAPS_MAX, CONTROLS_MAX, CallStage, CapChanges, StateEvent, WorkerControl, WorkerIdentity,
};

/// Machines told of; a worker on one more counts as alone.
const MACHINES_MAX: usize = 10_000;

/// Longest name of a machine, in bytes; a worker with a longer one counts as alone.
const MACHINE_NAME_MAX: usize = 255;

/// Digits of a machine's id that tell it from another of the same name.
const MACHINE_DIGITS: usize = 8;

/// Workers named in an error.
const NAMED_MAX: usize = 20;

/// A worker that an operator named.
struct Named {
    identity: WorkerIdentity,
    /// `None`: it is not connected.
    session: Option<WorkerId>,
}

/// A machine that workers told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// What the scheduler and people know it by: its name, with a part of its id where another has the same name.
    pub(crate) key: String,
    /// What limits go by.
    pub(crate) name: String,
}

impl Driver {
    /// An operator says what a worker may do.
    pub(super) fn set_worker_mode(
        &mut self,
        worker: &str,
        mode: WorkerMode,
        by: String,
        reply: Reply<WorkerRest>,
    ) {
        let answer = self.named(worker).and_then(|named| {
            self.room_for_control(self.controls.workers.contains_key(&named.identity))?;
            let (worker, now_ms) = (named.identity.clone(), self.now_ms());
            tracing::info!(worker = worker.name, mode = mode.word(), by, "set by an operator");
            self.events.push(StateEvent::WorkerModeSet { worker: worker.clone(), mode, by: by.clone() });
            let control = self.controls.workers.entry(worker).or_default();
            (control.mode, control.mode_set) = (mode, Some((by, now_ms)));
            self.recognise(&named);
            if let Some(known) = named.session.and_then(|session| self.workers.get_mut(&session)) {
                known.mode = mode;
                let worker = known.key;
                self.tell_sched(Event::WorkerMode { worker, mode: core_mode(mode) });
                self.drain_sched();
            }
            Ok(self.rest_of(&named))
        });
        self.answer(reply, answer);
    }

    /// What is left on a worker.
    pub(crate) fn worker_rest(&self, worker: &str) -> ApiResult<WorkerRest> {
        self.named(worker).map(|named| self.rest_of(&named))
    }

    /// An operator changes limits, or only looks.
    pub(super) fn change_caps(
        &mut self,
        target: CapsTarget,
        changes: &[CapSpec],
        by: String,
        reply: Reply<CapsView>,
    ) {
        let answer = match target {
            CapsTarget::Worker(name) => match self.named(&name) {
                Ok(named) => self.change_worker_caps(&named, changes, by),
                Err(_) if self.knows_machine(&name) => self.change_machine_caps(&name, changes, by),
                Err(unknown) => Err(unknown),
            },
            CapsTarget::Machine(name) => self.change_machine_caps(&name, changes, by),
        };
        self.answer(reply, answer);
    }

    fn change_worker_caps(&mut self, named: &Named, changes: &[CapSpec], by: String) -> ApiResult<CapsView> {
        if !changes.is_empty() {
            self.room_for_control(self.controls.workers.contains_key(&named.identity))?;
            let before = self.controls.workers.get(&named.identity).map(|control| &control.caps);
            let caps = changed(before, changes)?;
            self.controls.workers.entry(named.identity.clone()).or_default().caps = caps.clone();
            let worker = named.identity.clone();
            tracing::info!(worker = worker.name, by, "its limits were changed");
            self.events.push(StateEvent::WorkerCapsSet { worker, caps, by });
            self.recognise(named);
        }
        let connected = named.session.and_then(|session| self.workers.get(&session));
        let (own, key) = connected.map(|worker| (worker.own_caps.clone(), worker.key)).unzip();
        let own = own.unwrap_or_default();
        if let Some(session) = named.session {
            let caps = self.caps_of(&named.identity, &own);
            self.change(session, |worker| worker.caps = caps);
            self.drain_sched();
        }
        let keys: Vec<WorkerKey> = key.into_iter().collect();
        let uses = self.sched.worker_uses();
        let counts = Uses::of(&uses).counts(&keys);
        let caps = self.worker_cap_views(&named.identity, &own, &counts);
        Ok(CapsView { name: named.identity.name.clone(), machine: false, caps })
    }

    fn change_machine_caps(&mut self, name: &str, changes: &[CapSpec], by: String) -> ApiResult<CapsView> {
        if !self.knows_machine(name) {
            let known: Vec<_> = self.machines.values().map(|machine| machine.name.clone()).collect();
            return Err(ApiError::refused(format!(
                "MGR072: no machine {name:?}; {}",
                listed("known machines", known)
            )));
        }
        if !changes.is_empty() {
            self.room_for_control(self.controls.machines.contains_key(name))?;
            let caps = changed(self.controls.machines.get(name), changes)?;
            self.controls.machines.insert(name.to_owned(), caps.clone());
            tracing::info!(machine = name, by, "its limits were changed");
            self.events.push(StateEvent::MachineCapsSet { machine: name.to_owned(), caps, by });
            let keys: Vec<_> = self.machines_named(name).map(|machine| machine.key.clone()).collect();
            let caps = groups(&self.machine_caps_of(name));
            for machine in keys {
                self.tell_sched(Event::MachineCaps { machine, caps: caps.clone() });
            }
            self.drain_sched();
        }
        let keys: Vec<_> = self.machines_named(name).map(|machine| machine.key.as_str()).collect();
        let is_on_it = |worker: &&Worker| worker.machine.as_deref().is_some_and(|on| keys.contains(&on));
        let workers: Vec<WorkerKey> =
            self.workers.values().filter(is_on_it).map(|worker| worker.key).collect();
        let uses = self.sched.worker_uses();
        let counts = Uses::of(&uses).counts(&workers);
        Ok(CapsView { name: name.to_owned(), machine: true, caps: self.machine_cap_views(name, &counts) })
    }

    /// Gives a worker that registers what operators and the configuration say of it.
    pub(super) fn equip(&mut self, worker: &mut Worker) {
        let identity = identity_of(worker);
        self.find_settings(&identity, worker.repo);
        worker.mode = self.controls.workers.get(&identity).map_or(WorkerMode::Open, |control| control.mode);
        worker.caps = self.caps_of(&identity, &worker.own_caps);
        worker.stagger = self.shared.scheduling.stagger.clone();
        worker.machine = worker.told_machine.clone().and_then(|told| self.machine_of(told));
    }

    /// Keeps the id of a connected worker beside what was set for it.
    fn recognise(&mut self, named: &Named) {
        let repo = named.session.and_then(|session| self.workers.get(&session)?.repo);
        if let Some(repo) = repo {
            self.keep_repo(&named.identity, repo);
        }
    }

    fn keep_repo(&mut self, worker: &WorkerIdentity, repo: Uuid) {
        if let Some(control) = self.controls.workers.get_mut(worker).filter(|it| it.repo != Some(repo)) {
            control.repo = Some(repo);
            let worker = worker.clone();
            self.events.push(StateEvent::WorkerRecognised { worker, repo, before: None });
        }
    }

    /// A worker that nothing was set for under its name and address may be one that was elsewhere before: what was set for
    /// that one must not be lost without a word.
    fn find_settings(&mut self, identity: &WorkerIdentity, repo: Option<Uuid>) {
        if self.controls.workers.contains_key(identity) {
            return repo.map_or((), |repo| self.keep_repo(identity, repo));
        }
        let Some(repo) = repo else { return self.take_settings_by_name(identity) };
        let known = self.controls.workers.iter().find(|(_, control)| control.repo == Some(repo));
        // Where the repo was copied as a whole, two workers say the same.
        let before = known.map(|(known, _)| known.clone()).filter(|known| !self.is_here(known));
        let Some((before, control)) = before.and_then(|it| self.controls.workers.remove_entry(&it)) else {
            return;
        };
        tracing::info!(
            worker = identity.name,
            from = before.url,
            to = identity.url,
            "known by its repo's id"
        );
        self.controls.workers.insert(identity.clone(), control);
        let (worker, before) = (identity.clone(), Some(before));
        self.events.push(StateEvent::WorkerRecognised { worker, repo, before });
    }

    /// A Lotus worker has no id. Where something was set for workers of its name that are away it may be one of them, and gets
    /// what was set last; they keep it as well, for it may be another one.
    fn take_settings_by_name(&mut self, identity: &WorkerIdentity) {
        let named = self.controls.workers.iter().filter(|(known, control)| {
            known.name == identity.name && control.repo.is_none() && !self.is_here(known)
        });
        let last = named.max_by_key(|(_, control)| control.mode_set.as_ref().map(|(_, at_ms)| *at_ms));
        let Some((known, control)) = last else { return };
        let (mode, caps) = (control.mode, control.caps.clone());
        if mode == WorkerMode::Open && caps.iter().next().is_none() {
            return;
        }
        if let Err(error) = self.room_for_control(false) {
            return tracing::error!(worker = identity.name, %error, "what was set for its name does not hold for it");
        }
        let setter = control.mode_set.as_ref().map_or("an operator", |(by, _)| by.as_str());
        let by = format!("{setter}, for a worker of this name at {}", known.url);
        tracing::warn!(
            worker = identity.name,
            at = identity.url,
            mode = mode.word(),
            by,
            "set as it was elsewhere"
        );
        let worker = || identity.clone();
        self.events.push(StateEvent::WorkerModeSet { worker: worker(), mode, by: by.clone() });
        self.events.push(StateEvent::WorkerCapsSet { worker: worker(), caps: caps.clone(), by: by.clone() });
        let mode_set = Some((by, self.now_ms()));
        self.controls.workers.insert(worker(), WorkerControl { mode, mode_set, caps, repo: None });
    }

    /// Whether a worker of this name is connected at this address.
    fn is_here(&self, identity: &WorkerIdentity) -> bool {
        self.workers.values().any(|worker| worker.url == identity.url && worker.name() == identity.name)
    }

    /// What the scheduler knows the machine by. One that is new gets its limits before any worker of it is there.
    fn machine_of(&mut self, told: MachineIdentity) -> Option<String> {
        if !self.shared.scheduling.share_machines {
            return None;
        }
        if let Some(known) = self.machines.get(&told.id) {
            return Some(known.key.clone());
        }
        let sound = |text: &str| (1..=MACHINE_NAME_MAX).contains(&text.len());
        if !sound(&told.id) || !sound(&told.name) || self.machines.len() >= MACHINES_MAX {
            tracing::warn!(
                machine = told.name,
                "this machine is not told from others; its workers count as alone"
            );
            return None;
        }
        let digits: String = told.id.chars().take(MACHINE_DIGITS).collect();
        let taken = self.machines.values().any(|machine| machine.key == told.name);
        let key = if taken { format!("{} ({digits})", told.name) } else { told.name.clone() };
        let caps = groups(&self.machine_caps_of(&told.name));
        if !caps.is_empty() {
            self.tell_sched(Event::MachineCaps { machine: key.clone(), caps });
        }
        self.machines.insert(told.id, Machine { key: key.clone(), name: told.name });
        Some(key)
    }

    /// Who set the worker's mode, and when.
    pub(super) fn mode_set(&self, worker: &Worker) -> Option<(String, u64)> {
        self.controls.workers.get(&identity_of(worker))?.mode_set.clone()
    }

    fn machines_named(&self, name: &str) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(move |machine| machine.name == name)
    }

    fn knows_machine(&self, name: &str) -> bool {
        self.machines_named(name).next().is_some() || self.controls.machines.contains_key(name)
    }

    fn room_for_control(&self, known: bool) -> ApiResult<()> {
        let kept = self.controls.workers.len().saturating_add(self.controls.machines.len());
        if known || kept < CONTROLS_MAX {
            return Ok(());
        }
        Err(ApiError::refused(format!("MGR073: {kept} workers and machines have settings; no more are kept")))
    }

    /// The worker that is meant: a connected one, or one that something was set for.
    fn named(&self, text: &str) -> ApiResult<Named> {
        let connected: Vec<_> = self
            .workers
            .values()
            .filter(|worker| is_meant(text, worker.name(), &worker.url, Some(worker.key.session)))
            .map(|worker| Named { identity: identity_of(worker), session: Some(worker.key.session) })
            .collect();
        let away = || {
            let known = self.controls.workers.keys();
            let meant = known.filter(|known| is_meant(text, &known.name, &known.url, None));
            meant.map(|identity| Named { identity: identity.clone(), session: None }).collect()
        };
        let mut found: Vec<Named> = if connected.is_empty() { away() } else { connected };
        let described = |named: &Named| {
            let session = named.session.map_or_else(|| "not connected".to_owned(), |id| id.to_string());
            format!("{} {} ({session})", named.identity.name, named.identity.url)
        };
        if found.len() > 1 {
            let which =
                listed("give the session or the address of one", found.iter().map(described).collect());
            return Err(ApiError::refused(format!("MGR071: several workers are named {text:?}; {which}")));
        }
        found.pop().ok_or_else(|| {
            let known = self.workers.values().map(|worker| worker.name().to_owned()).collect();
            ApiError::refused(format!("MGR070: no worker {text:?}; {}", listed("known workers", known)))
        })
    }

    fn rest_of(&self, named: &Named) -> WorkerRest {
        let mode =
            self.controls.workers.get(&named.identity).map_or(WorkerMode::Open, |control| control.mode);
        let mut rest = WorkerRest {
            name: named.identity.name.clone(),
            url: named.identity.url.clone(),
            session: named.session,
            mode,
            ..WorkerRest::default()
        };
        let Some(worker) = named.session.and_then(|session| self.workers.get(&session)) else { return rest };
        let here = self.open_attempts().filter(|(_, open)| open.worker == worker.key.session);
        rest.tasks = here
            .filter_map(|(task, open)| {
                let fetching = matches!(
                    open.phase,
                    Phase::Calling(CallStage::Prepare) | Phase::Held(CallStage::Prepare, _)
                );
                let stage =
                    if open.staged || fetching || open.phase == Phase::Ready { "staged" } else { "running" };
                let (attempt, sector) = (open.id, self.shared.name(task.sector.id));
                Some(RestTask { attempt, sector, task: task.work.task_type()?, stage: stage.to_owned() })
            })
            .chain(self.detached_rest(worker.key.session))
            .collect();
        // "running" comes before "staged".
        rest.tasks.sort_by(|one, other| (&one.stage, one.attempt).cmp(&(&other.stage, other.attempt)));
        if let Some(drain) = self.sched.drain(worker.key) {
            rest.waiting = drain.only_here.len() as u64;
            rest.expected_end_ms = drain.empty_by.filter(|_| !drain.is_done()).map(sched::Millis::get);
            rest.nowhere = drain.nowhere.into_iter().take(NOWHERE_MAX).collect();
        }
        rest.between_tasks = self.between_tasks(&worker.paths);
        rest
    }

    /// How many sectors with files in these paths go on by themselves while no task of theirs waits or runs.
    fn between_tasks(&self, paths: &[StorageId]) -> u64 {
        let here = paths.iter().flat_map(|path| self.shared.index.path_files(path));
        let sectors: BTreeSet<SectorId> = here.map(|(files, _)| files.sector).collect();
        let goes_on = |sector: &&SectorId| {
            let busy = self.sectors.get(sector).map(|known| &known.busy);
            matches!(busy, Some(Busy::Asking | Busy::Until(_)))
        };
        sectors.iter().filter(goes_on).count() as u64
    }
}

/// The worker as settings know it.
pub(super) fn identity_of(worker: &Worker) -> WorkerIdentity {
    WorkerIdentity { name: worker.name().to_owned(), url: worker.url.clone() }
}

/// The scheduler's word for a mode.
pub(super) const fn core_mode(mode: WorkerMode) -> sched::WorkerMode {
    match mode {
        WorkerMode::Open => sched::WorkerMode::Open,
        WorkerMode::Cordoned => sched::WorkerMode::Cordoned,
        WorkerMode::Draining => sched::WorkerMode::Draining,
        WorkerMode::Disabled => sched::WorkerMode::Disabled,
    }
}

/// Puts a worker's limits into its profile: those of one type by that, those of several by a name of their own.
pub(super) fn limit(profile: &mut WorkerProfile, caps: &TaskCaps) {
    for (group, most) in caps.iter() {
        match group.single() {
            Some(task) => {
                profile.caps.insert(task, most);
            }
            None => profile.group_caps.push(group_cap(group, most)),
        }
    }
}

fn groups(caps: &TaskCaps) -> Vec<GroupCap> {
    caps.iter().map(|(group, most)| group_cap(group, most)).collect()
}

fn group_cap(group: &TaskGroup, most: u32) -> GroupCap {
    GroupCap { name: group.to_string(), tasks: group.tasks().clone(), most }
}

/// The limits as they are after these changes, if they are not too many.
fn changed(before: Option<&CapChanges>, changes: &[CapSpec]) -> ApiResult<CapChanges> {
    let mut caps = before.cloned().unwrap_or_default();
    changes.iter().for_each(|change| caps.apply(change));
    match caps.iter().count() {
        0..=CAPS_MAX => Ok(caps),
        count => Err(ApiError::refused(format!(
            "MGR075: {count} limits on one name; at most {CAPS_MAX} are kept, take some back with `PC1=default`"
        ))),
    }
}

/// A few names in an error, with how many there are besides.
fn listed(what: &str, mut names: Vec<String>) -> String {
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    match (names.is_empty(), more) {
        (true, _) => format!("{what}: none"),
        (false, 0) => format!("{what}: {}", names.join(", ")),
        (false, more) => format!("{what}: {} and {more} more", names.join(", ")),
    }
}
