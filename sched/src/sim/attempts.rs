//! The simulated workers do as they are told: fetch, wait, work, give up.

use sealtasks::{AttemptId, SealTaskType, StorageId};

use super::engine::{Due, Engine};
use super::hosts::{Live, LivePhase};
use super::report::SpanPhase;
use super::usage::resources;
use super::watch::Watch;
use super::{Scheduler, files};
use crate::{Action, Assignment, Event, GpuShare, Millis, Outcome};

impl<S: Scheduler, W: Watch<S>> Engine<S, W> {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Start(to) => self.begin(to, true),
            Action::Stage(to) => self.begin(to, false),
            Action::Run { attempt, gpus, .. } => self.slot_free(attempt, gpus),
            Action::Unstage { attempt, .. } => {
                if self.driver.is_aborted_too() {
                    self.word(Event::Cancel { task: attempt.task });
                }
                self.give_up(attempt, Outcome::Unstaged);
            }
            Action::Abort { attempt, .. } => self.give_up(attempt, Outcome::Failed),
            Action::Left { task, end } => self.task_left(task, end),
            Action::Refused { .. } => self.report.refused += 1,
            Action::WakeAt { at } => self.wake(at),
        }
    }

    /// The scheduler hears of an event: what ended is out of everybody's hands.
    pub(super) fn heard(&mut self, event: &Event) {
        if let Event::Ended { attempt, .. } | Event::StartFailed { attempt, .. } = event
            && self.hosts.live_mut(*attempt).is_some()
        {
            self.hosts.live.remove(&attempt.task);
        }
    }

    fn begin(&mut self, to: Assignment, has_slot: bool) {
        let attempt = to.attempt;
        self.report.attempts += 1;
        if let Some(task) = self.jobs.task_mut(attempt.task) {
            task.request.attempts = attempt.attempt;
        }
        let Some(worker) = self.hosts.answering(to.worker) else {
            self.start_failed(attempt);
            return;
        };
        if self.never_begins() {
            self.start_failed(attempt);
            return;
        }
        self.files.hold(attempt, &to.plan);
        let bytes = to.plan.fetch_bytes();
        let gpus = to.plan.gpus.clone();
        let live = Live {
            attempt,
            worker,
            plan: to.plan,
            phase: LivePhase::Fetching,
            has_slot,
            since: self.now,
            token: 0,
            gpus,
        };
        self.hosts.live.insert(attempt.task, live);
        if has_slot {
            self.take_slot(attempt);
        }
        self.worker_word(Event::Started { attempt });
        if bytes == 0 && has_slot {
            self.work(attempt);
        } else {
            self.report.bytes_moved = self.report.bytes_moved.saturating_add(bytes);
            let there = self.hosts.all[worker].fetch(self.now, bytes);
            self.put(there, Due::Fetched(attempt, 0));
        }
    }

    pub(super) fn fetched(&mut self, attempt: AttemptId, token: u64) {
        let Some(task) = self.jobs.task(attempt.task) else { return };
        let sector = task.sector.id;
        let live = self.hosts.live_mut(attempt);
        let Some(live) = live.filter(|live| live.token == token && live.phase == LivePhase::Fetching) else {
            return;
        };
        let mut touched: Vec<StorageId> = Vec::new();
        let mut kinds = Vec::new();
        for step in &live.plan.fetch {
            self.files.fetched(attempt, sector, step);
            kinds.push(step.kind);
            touched.push(step.to.clone());
            touched.extend(step.from.iter().cloned());
        }
        for kind in kinds {
            let paths = self.files.places(sector, kind);
            self.worker_word(Event::SectorFiles { sector, kind, paths });
        }
        self.report_paths(touched);
        self.note_span(attempt, SpanPhase::Fetch, true);
        let Some(live) = self.hosts.live_mut(attempt) else { return };
        live.since = self.now;
        if live.has_slot {
            self.word(Event::StageDone { attempt });
            self.work(attempt);
        } else {
            live.phase = LivePhase::Fetched;
            self.worker_word(Event::StageDone { attempt });
        }
    }

    /// A staged attempt got its slot.
    fn slot_free(&mut self, attempt: AttemptId, gpus: Vec<GpuShare>) {
        let Some(live) = self.hosts.live_mut(attempt).filter(|live| !live.has_slot && !live.is_over()) else {
            return;
        };
        live.gpus = gpus;
        let is_fetched = live.phase == LivePhase::Fetched;
        self.take_slot(attempt);
        if is_fetched {
            self.note_span(attempt, SpanPhase::Wait, true);
            self.work(attempt);
        }
    }

    /// Everything is there: the work begins.
    pub(super) fn work(&mut self, attempt: AttemptId) {
        let now = self.now;
        let Some(live) = self.hosts.live.get_mut(&attempt.task) else { return };
        let Some(task) = self.jobs.task_mut(attempt.task) else { return };
        live.phase = LivePhase::Working;
        live.since = now;
        live.token += 1;
        let token = live.token;
        let kind = task.shape.task;
        let time = self.hosts.all[live.worker].time(kind, task.work);
        if let Some(submitted) = task.submitted.take() {
            self.waiting.entry(kind).or_default().push(now.get().saturating_sub(submitted.get()));
        }
        self.put(now.after(time), Due::Worked(attempt, token));
    }

    pub(super) fn worked(&mut self, attempt: AttemptId, token: u64) {
        let live = self.hosts.live_mut(attempt);
        if live.is_some_and(|live| live.token == token && live.phase == LivePhase::Working) {
            let outcome = self.outcome();
            self.end(attempt, outcome);
        }
    }

    /// The worker stops an attempt, unless it has ended already.
    pub(super) fn give_up(&mut self, attempt: AttemptId, outcome: Outcome) {
        if self.hosts.live_mut(attempt).is_some_and(|live| !live.is_over()) {
            self.end(attempt, outcome);
        }
    }

    /// An attempt ends, and word of it goes out.
    pub(super) fn end(&mut self, attempt: AttemptId, outcome: Outcome) {
        let touched = self.end_silently(attempt, outcome);
        self.worker_word(Event::Ended { attempt, outcome });
        self.report_paths(touched);
    }

    /// An attempt ends: files appear or do not, its room and slot are free. Returns the paths that this touched.
    pub(super) fn end_silently(&mut self, attempt: AttemptId, outcome: Outcome) -> Vec<StorageId> {
        let done = outcome == Outcome::Finished;
        let Some(live) = self.hosts.live_mut(attempt) else { return Vec::new() };
        let phase = match live.phase {
            LivePhase::Fetching => SpanPhase::Fetch,
            LivePhase::Fetched => SpanPhase::Wait,
            LivePhase::Working | LivePhase::Over(_) => SpanPhase::Run,
        };
        self.note_span(attempt, phase, done);
        self.discharge(attempt);
        let Some(live) = self.hosts.live_mut(attempt) else { return Vec::new() };
        live.phase = LivePhase::Over(outcome);
        let (plan, worker) = (std::mem::take(&mut live.plan), live.worker);
        self.files.let_go(attempt, &plan);
        let mut touched: Vec<StorageId> = files::parts(&plan).map(|(path, _)| path.clone()).collect();
        if done && let Some(task) = self.jobs.task(attempt.task) {
            let (sector, shape) = (task.sector, task.shape);
            *self.hosts.all[worker].finished.entry(shape.task).or_default() += 1;
            for step in &plan.allocate {
                self.files.put(sector.id, step.kind, step.bytes, &step.path);
                let paths = self.files.places(sector.id, step.kind);
                self.worker_word(Event::SectorFiles { sector: sector.id, kind: step.kind, paths });
            }
            touched.extend(self.files.drop_all(sector.id, shape.after.drops));
            for kind in shape.after.drops.iter() {
                self.worker_word(Event::SectorFiles { sector: sector.id, kind, paths: Vec::new() });
            }
            if shape.after.finalizes {
                touched.extend(self.files.finalize(sector));
            }
        }
        touched
    }

    /// The owners of these paths report.
    pub(super) fn report_paths(&mut self, mut paths: Vec<StorageId>) {
        paths.sort_unstable();
        paths.dedup();
        paths.iter().for_each(|path| self.path_word(path));
    }

    /// The attempt has a slot from now on.
    pub(super) fn take_slot(&mut self, attempt: AttemptId) {
        if let Some(live) = self.hosts.live_mut(attempt) {
            live.has_slot = true;
            self.count_use(attempt, true);
        }
    }

    fn discharge(&mut self, attempt: AttemptId) {
        if self.hosts.live_mut(attempt).is_some_and(|live| live.has_slot) {
            self.count_use(attempt, false);
        }
    }

    fn count_use(&mut self, attempt: AttemptId, begins: bool) {
        let now: Millis = self.now;
        let Some(live) = self.hosts.live.get(&attempt.task) else { return };
        let Some(task) = self.jobs.task(attempt.task) else { return };
        let host = &mut self.hosts.all[live.worker];
        let kind = SealTaskType { proof: task.sector.proof, task: task.shape.task };
        let row = resources(&host.profile, &self.settings.resources, kind);
        if begins {
            host.usage.charge(now, kind, &row, &host.profile);
        } else {
            host.usage.release(now, kind, &row, &host.profile);
        }
    }
}
