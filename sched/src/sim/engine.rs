//! The engine: a heap of what happens next, and the step that lets it happen.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, ResourceTable};

use super::cluster::{Cluster, Workload};
use super::driver::Driver;
use super::files::Files;
use super::hosts::Hosts;
use super::jobs::Jobs;
use super::report::{PathReport, Report, SpanPhase, TaskStats, WorkerReport};
use super::trouble::Trouble;
use super::watch::{Violation, Watch};
use super::{Scheduler, SpanPhase as Phase};
use crate::{Event, GroupCap, Millis, Policy};

/// One simulation.
///
/// `hosts`, `files` and `jobs` are the world as it really is; the scheduler knows of it only what `tell` told it, and
/// changes it only through its actions. Everything that will happen stands in `heap`, by instant and then in the order in
/// which it was put there.
pub struct Engine<S, W = ()> {
    pub(super) settings: Settings,
    pub(super) now: Millis,
    heap: BTreeMap<(Millis, u64), Due>,
    sequence: u64,
    /// As `sequence`, for drivers that take over: what they tell comes before all else of the instant.
    first: u64,
    pub(super) is_taking_over: bool,
    pub(super) scheduler: S,
    pub(super) watch: W,
    pub(super) hosts: Hosts,
    pub(super) files: Files,
    pub(super) jobs: Jobs,
    pub(super) driver: Driver,
    /// Makes the scheduler that takes over after a crash.
    pub(super) make: Option<Box<dyn Fn() -> S>>,
    /// As it was meant to be.
    pub(super) cluster: Cluster,
    /// What was set last, for whoever takes over after a crash.
    pub(super) policy: Option<Policy>,
    pub(super) machine_caps: BTreeMap<String, Vec<GroupCap>>,
    /// When the scheduler wants to be woken, by its own clock.
    pub(super) wake_at: Option<Millis>,
    pub(super) report: Report,
    pub(super) waiting: BTreeMap<sealtasks::TaskType, Vec<u64>>,
    pub(super) working: BTreeMap<sealtasks::TaskType, Vec<u64>>,
    last_end: Millis,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What tasks take where a worker has no row of its own; for the figures of use alone.
    pub resources: ResourceTable,
    /// Whether the report has a timeline.
    pub timeline: bool,
    /// When the simulation ends, whatever is left; `None`: when nothing more happens.
    pub until: Option<Millis>,
    /// Where the luck of its troubles begins. Without troubles nothing is drawn.
    pub seed: u64,
}

impl Default for Settings {
    /// Lotus's table, no timeline, no horizon.
    fn default() -> Self {
        Self { resources: ResourceTable::builtin(), timeline: false, until: None, seed: 0 }
    }
}

/// Places before this one are for drivers that take over.
const FIRST: u64 = 1 << 32;

/// One thing that will happen.
#[derive(Debug)]
pub(super) enum Due {
    /// A job may begin, or its next stage.
    Stage(usize),
    /// Word reaches the scheduler.
    Word(Box<Event>),
    /// A fetch is over, if the attempt's token is still this one.
    Fetched(AttemptId, u64),
    /// The work is done, if the attempt's token is still this one.
    Worked(AttemptId, u64),
    /// The scheduler wanted to be woken.
    Wake,
    /// Something goes wrong.
    Trouble(Box<Trouble>),
}

impl<S: Scheduler, W: Watch<S>> Engine<S, W> {
    /// A simulation that has not begun: the scheduler has been told nothing.
    pub fn new(scheduler: S, cluster: &Cluster, workload: Workload, settings: Settings, watch: W) -> Self {
        let mut engine = Self {
            now: Millis::ZERO,
            heap: BTreeMap::new(),
            sequence: FIRST,
            first: 0,
            is_taking_over: false,
            scheduler,
            watch,
            hosts: Hosts::new(cluster),
            files: Files::new(&cluster.paths),
            jobs: Jobs::new(workload),
            driver: Driver::new(settings.seed),
            make: None,
            cluster: cluster.clone(),
            policy: None,
            machine_caps: BTreeMap::new(),
            wake_at: None,
            settings,
            report: Report::default(),
            waiting: BTreeMap::new(),
            working: BTreeMap::new(),
            last_end: Millis::ZERO,
        };
        for (machine, caps) in &cluster.machine_caps {
            engine.strike(Trouble::Say(Box::new(Event::MachineCaps {
                machine: machine.clone(),
                caps: caps.clone(),
            })));
        }
        for job in engine.jobs.all() {
            for (kind, path) in &job.files {
                let bytes = sealtasks::sealing_space((*kind).into(), job.sector.proof.sector_size());
                engine.files.put(job.sector.id, *kind, bytes, path);
            }
        }
        for path in &cluster.paths {
            engine.path_word(&path.facts.id);
        }
        for host in 0..engine.hosts.all.len() {
            engine.worker_up(host);
        }
        let releases: Vec<Millis> = engine.jobs.all().map(|job| job.release).collect();
        releases.into_iter().enumerate().for_each(|(job, at)| engine.put(at, Due::Stage(job)));
        engine
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first rule that the watch found broken.
    pub fn run(mut self) -> Result<Report, Violation> {
        while self.step()? {}
        Ok(self.finish())
    }

    /// Lets the next thing happen; `false`: nothing more happens, or not before the horizon.
    ///
    /// # Errors
    /// A rule that the watch found broken.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let Some(entry) = self.heap.first_entry() else { return Ok(false) };
        let at = entry.key().0;
        if self.settings.until.is_some_and(|until| at > until) {
            return Ok(false);
        }
        self.now = at;
        match entry.remove() {
            Due::Stage(job) => self.next_stage(job)?,
            Due::Word(event) => self.tell(*event)?,
            Due::Fetched(attempt, token) => self.fetched(attempt, token),
            Due::Worked(attempt, token) => self.worked(attempt, token),
            Due::Wake if self.is_wake_due() => {
                self.wake_at = None;
                self.tell(Event::Tick)?;
            }
            Due::Wake => {}
            Due::Trouble(trouble) => self.strike(*trouble),
        }
        Ok(true)
    }

    /// Virtual time.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Jobs that have ended, well or not.
    pub fn jobs_ended(&self) -> usize {
        self.report.sectors.len() + self.report.failed
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &S {
        &self.scheduler
    }

    /// Whoever looks on, and what they look at.
    pub fn watched(&mut self) -> (&mut W, &S) {
        (&mut self.watch, &self.scheduler)
    }

    /// Whoever looks on.
    pub fn watch_mut(&mut self) -> &mut W {
        &mut self.watch
    }

    /// Lets `make` give the scheduler that takes over when its driver crashes ([`Trouble::Crash`]).
    pub fn takes_over(&mut self, make: impl Fn() -> S + 'static) {
        self.make = Some(Box::new(make));
    }

    /// What came of it so far.
    pub fn finish(mut self) -> Report {
        self.report.unfinished = self.jobs.unfinished();
        let cut = self.settings.until.filter(|_| self.report.unfinished > 0);
        self.report.makespan = cut.unwrap_or(self.last_end);
        let span = self.report.makespan;
        let numbers = |values: BTreeMap<_, _>| -> BTreeMap<_, _> {
            values.into_iter().map(|(task, values)| (task, TaskStats::of(values))).collect()
        };
        self.report.waiting = numbers(self.waiting);
        self.report.working = numbers(self.working);
        self.report.paths = self
            .files
            .disks()
            .map(|(path, disk)| PathReport { path: path.clone(), peak: disk.peak, capacity: disk.capacity })
            .collect();
        self.report.workers = self.hosts.all.iter_mut().map(|host| worker_report(host, span)).collect();
        self.report
    }

    /// Puts something into the heap.
    pub(super) fn put(&mut self, at: Millis, due: Due) {
        let at = at.max(self.now);
        let is_first = self.is_taking_over && at == self.now;
        let place = if is_first { &mut self.first } else { &mut self.sequence };
        *place += 1;
        let place = *place;
        self.heap.insert((at, place), due);
    }

    /// Sends word to the scheduler.
    pub(super) fn word(&mut self, event: Event) {
        self.put(self.now, Due::Word(Box::new(event)));
    }

    /// The path's owner reports, if it is there.
    pub(super) fn path_word(&mut self, path: &sealtasks::StorageId) {
        if let Some(path) = self.files.report(path) {
            self.worker_word(Event::PathSeen { path });
        }
    }

    pub(super) fn worker_up(&mut self, host: usize) {
        let host = &self.hosts.all[host];
        let event = Event::WorkerUp { worker: host.key, profile: host.profile.clone() };
        self.word(event);
    }

    /// Tells the scheduler and carries out what it answers.
    pub(super) fn tell(&mut self, event: Event) -> Result<(), Violation> {
        self.heard(&event);
        let now = self.told(self.now);
        self.watch.told(now, &event);
        self.report.events += 1;
        self.scheduler.handle(now, event);
        while let Some(action) = self.scheduler.poll_action() {
            self.watch.answered(now, &action);
            self.carry_out(action);
        }
        self.watch.settled(now, &self.scheduler)
    }

    pub(super) fn note_end(&mut self) {
        self.last_end = self.now;
    }

    /// Notes that an attempt left one of its phases.
    pub(super) fn note_span(&mut self, attempt: AttemptId, phase: SpanPhase, complete: bool) {
        let Some(live) = self.hosts.live.get(&attempt.task) else { return };
        let Some(task) = self.jobs.task(attempt.task) else { return };
        let span = self.now.get().saturating_sub(live.since.get());
        if phase == Phase::Run && complete {
            self.working.entry(task.shape.task).or_default().push(span);
        }
        if self.settings.timeline {
            self.report.timeline.push(super::Span {
                worker: live.worker,
                attempt,
                task: task.shape.task,
                sector: task.sector.id,
                phase,
                from: live.since,
                to: self.now,
                gpus: live.gpus.clone(),
                complete,
            });
        }
    }
}

fn worker_report(host: &mut super::hosts::Host, span: Millis) -> WorkerReport {
    host.usage.advance(span);
    let share = |area: u128, of: u128| {
        let whole = of.saturating_mul(span.get().into());
        if whole == 0 { 0.0 } else { area as f64 / whole as f64 }
    };
    let profile = &host.profile;
    let narrow = |wide: u128| u64::try_from(wide).unwrap_or(u64::MAX);
    WorkerReport {
        host: profile.host.clone(),
        cpu: share(host.usage.area.threads, profile.cpus.into()),
        memory: share(host.usage.area.memory, profile.mem_physical.into()),
        gpu: share(host.usage.area.gpu, 1000 * profile.gpus.len() as u128),
        busy: share(host.usage.busy.into(), 1),
        cpu_peak: narrow(host.usage.peak.threads),
        memory_peak: narrow(host.usage.peak.memory),
        gpu_peak: narrow(host.usage.peak.gpu),
        bytes_in: host.bytes_in,
        fetching: share(host.link_busy.into(), 1),
        finished: std::mem::take(&mut host.finished),
    }
}
