//! One run: the world goes into the engine, what happened comes out as a [`Timeline`].

use std::collections::BTreeMap;

use sched::sim::lotus::{Lotus, LotusOptions};
use sched::sim::{Engine, Report, Scheduler, Settings, Span as SimSpan, SpanPhase, Violation, Watch};
use sched::{Action, End, Event, Millis, Obstacle, Options, Sched, WorkerKey};
use sealtasks::{AttemptId, TaskId, TaskType};

use super::cluster::Cluster;
use super::timeline::{PathRecord, Phase, SectorRecord, Span, TaskRecord, Timeline};
use super::world::{World, world};
use crate::args::SchedulerKind;

/// Steps of the engine between two reports of progress.
const STEPS_PER_REPORT: u64 = 4096;

/// Simulates the cluster. `progress` is told the simulated milliseconds from time to time.
///
/// # Errors
/// The engine stopped the run; in words. No rule is watched here, so that this is a mistake of ours.
pub fn run(
    cluster: &Cluster,
    scheduler: SchedulerKind,
    progress: impl FnMut(u64),
) -> Result<Timeline, Violation> {
    let world = world(cluster);
    let resources = world.resources.clone();
    let (policy, seed) = (cluster.policy, cluster.seed);
    match scheduler {
        SchedulerKind::Sealyard => {
            let (wait_limit, staged_per_running) = (cluster.wait_limit, cluster.staged_per_running);
            let options =
                Options { resources, wait_limit, staged_per_running, policy, seed, ..Options::default() };
            run_with(Sched::new(options), cluster, world, progress)
        }
        SchedulerKind::Lotus => {
            let options = LotusOptions { resources, policy, seed, ..LotusOptions::default() };
            run_with(Lotus::new(options), cluster, world, progress)
        }
    }
}

/// Simulates a world with any scheduler.
///
/// # Errors
/// As [`run`].
fn run_with<S: Scheduler>(
    scheduler: S,
    cluster: &Cluster,
    world: World,
    mut progress: impl FnMut(u64),
) -> Result<Timeline, Violation> {
    let mut recorder = Recorder::default();
    let settings = Settings {
        resources: world.resources,
        timeline: true,
        until: Some(cluster.horizon),
        ..Settings::default()
    };
    let arrived: Vec<u64> = world.workload.jobs.iter().map(|job| job.release.get()).collect();
    let mut engine = Engine::new(scheduler, &world.cluster, world.workload, settings, &mut recorder);
    for (at, trouble) in world.troubles {
        engine.trouble(at, trouble);
    }
    let mut steps = 0;
    while engine.step()? {
        steps += 1;
        if steps % STEPS_PER_REPORT == 0 {
            progress(engine.now().get());
        }
    }
    let report = engine.finish();
    Ok(recorder.timeline(cluster.horizon.get(), &arrived, report, &world.paths))
}

/// What the engine's report does not tell: when each task was submitted, when each attempt got its slot, and what was
/// still going on at the end.
#[derive(Debug, Default)]
struct Recorder {
    tasks: BTreeMap<TaskId, (u64, TaskRecord)>,
    live: BTreeMap<AttemptId, Attempt>,
    over: BTreeMap<AttemptId, Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    worker: WorkerKey,
    began: u64,
    /// Since when it has had its slot.
    slot: Option<u64>,
    fetches: bool,
}

impl<S> Watch<S> for &mut Recorder {
    fn told(&mut self, now: Millis, event: &Event) {
        match event {
            Event::Submit { task, request } => {
                let record =
                    TaskRecord { task: request.task, submitted: now.get(), started: None, finished: None };
                self.tasks.insert(*task, (request.sector.id.number.get(), record));
            }
            Event::Ended { attempt, .. } | Event::StartFailed { attempt, .. } => {
                if let Some(ended) = self.live.remove(attempt) {
                    self.over.insert(*attempt, ended);
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, now: Millis, action: &Action) {
        let now = now.get();
        match action {
            Action::Start(to) | Action::Stage(to) => {
                let slot = matches!(action, Action::Start(_)).then_some(now);
                let fetches = to.plan.fetch_bytes() > 0;
                let attempt = Attempt { worker: to.worker, began: now, slot, fetches };
                self.live.insert(to.attempt, attempt);
            }
            Action::Run { attempt, .. } => {
                if let Some(live) = self.live.get_mut(attempt) {
                    live.slot = Some(now);
                }
            }
            Action::Left { task, end: End::Finished } => {
                if let Some((_, record)) = self.tasks.get_mut(task) {
                    record.finished = Some(now);
                }
            }
            _ => {}
        }
    }
}

impl Recorder {
    fn timeline(
        mut self,
        horizon: u64,
        arrived: &[u64],
        report: Report,
        names: &[super::world::PathName],
    ) -> Timeline {
        let mut spans = Vec::new();
        let mut last: BTreeMap<AttemptId, (u64, bool)> = BTreeMap::new();
        for span in &report.timeline {
            let attempt = self.live.get(&span.attempt).or_else(|| self.over.get(&span.attempt));
            let slot = attempt.and_then(|attempt| attempt.slot);
            closed(&mut spans, span, slot);
            let fetched = last.get(&span.attempt).is_some_and(|(_, fetched)| *fetched);
            last.insert(span.attempt, (span.to.get(), fetched || span.phase == SpanPhase::Fetch));
            if span.phase == SpanPhase::Run
                && let Some((_, record)) = self.tasks.get_mut(&span.attempt.task)
            {
                record.started = Some(span.from.get());
            }
        }
        self.cut_off(horizon, &last, &mut spans);
        spans.sort_by_key(|span| (span.from, span.machine, span.sector, span.phase));
        let mut sectors: Vec<SectorRecord> = arrived
            .iter()
            .map(|arrived| SectorRecord { arrived: *arrived, begun: None, finished: None })
            .collect();
        for (number, record) in self.tasks.values() {
            let Some(sector) = position(*number).and_then(|at| sectors.get_mut(at)) else { continue };
            let begun = sector.begun.map_or(record.submitted, |begun| begun.min(record.submitted));
            sector.begun = Some(begun);
        }
        for done in &report.sectors {
            if let Some(sector) = position(done.sector.number.get()).and_then(|at| sectors.get_mut(at)) {
                sector.finished = Some(done.to.get());
            }
        }
        let mut tasks: Vec<TaskRecord> = self.tasks.into_values().map(|(_, record)| record).collect();
        tasks.sort_by_key(|record| (record.submitted, record.task));
        let peaks: BTreeMap<_, _> = report.paths.iter().map(|path| (&path.path, path.peak)).collect();
        let paths = names.iter().map(|name| PathRecord {
            name: name.name.clone(),
            size: name.path.size,
            peak: peaks.get(&name.id).copied().unwrap_or(0),
            seal: name.path.seal,
        });
        Timeline { horizon, spans, tasks, sectors, paths: paths.collect(), bytes_moved: report.bytes_moved }
    }

    /// What went on at the horizon ends there.
    fn cut_off(&mut self, horizon: u64, last: &BTreeMap<AttemptId, (u64, bool)>, spans: &mut Vec<Span>) {
        for (id, attempt) in &self.live {
            let Some((sector, record)) = self.tasks.get_mut(&id.task) else { continue };
            let (from, fetched) = last.get(id).copied().unwrap_or((attempt.began, false));
            let fetching = attempt.fetches && !fetched;
            let phase = match (attempt.slot, fetching) {
                (Some(_), true) => Phase::Fetch,
                (Some(_), false) => Phase::Run,
                (None, true) => Phase::Stage,
                (None, false) => Phase::Ready,
            };
            // A staged attempt waits from its last word until its slot came.
            let from = from.max(if phase == Phase::Run { attempt.slot.unwrap_or(from) } else { from });
            if phase == Phase::Run {
                record.started = Some(from);
            }
            if let Some(machine) = machine(attempt.worker).filter(|_| from < horizon) {
                spans.push(Span { machine, task: record.task, sector: *sector, phase, from, to: horizon });
            }
        }
    }
}

/// One span of the engine's, which is two where the slot came in the middle of a fetch.
fn closed(spans: &mut Vec<Span>, span: &SimSpan, slot: Option<u64>) {
    let (from, to) = (span.from.get(), span.to.get());
    let make = |phase, from, to| Span {
        machine: span.worker,
        task: span.task,
        sector: span.sector.number.get(),
        phase,
        from,
        to,
    };
    match span.phase {
        SpanPhase::Run => spans.push(make(Phase::Run, from, to)),
        SpanPhase::Wait => spans.push(make(Phase::Ready, from, to)),
        SpanPhase::Fetch => {
            let slot = slot.unwrap_or(to).clamp(from, to);
            spans.extend((from < slot).then(|| make(Phase::Stage, from, slot)));
            spans.extend((slot < to).then(|| make(Phase::Fetch, slot, to)));
        }
    }
}

fn position(sector: u64) -> Option<usize> {
    usize::try_from(sector.checked_sub(1)?).ok()
}

/// The position in the cluster of the worker with this key, as the engine numbers them.
fn machine(worker: WorkerKey) -> Option<usize> {
    usize::try_from(worker.session.0.as_u128().checked_sub(1)?).ok()
}

/// Why some task of [`super::cluster::TIMED`] could never start, even alone; in words. `None`: every one could.
pub fn impossible(cluster: &Cluster) -> Option<(TaskType, String)> {
    let world = world(cluster);
    super::cluster::TIMED.into_iter().find_map(|task| {
        let mut scheduler = Sched::new(Options { resources: world.resources.clone(), ..Options::default() });
        for (position, worker) in world.cluster.workers.iter().enumerate() {
            let key = sched::sim::worker_key(position);
            scheduler.handle(Millis::ZERO, Event::WorkerUp { worker: key, profile: worker.profile.clone() });
        }
        let (id, sector) = (TaskId::new(1), world.workload.jobs.first()?.sector);
        let request = sched::sim::Shape::bare(task).request(sector, Millis::ZERO, |_| Vec::new());
        scheduler.handle(Millis::ZERO, Event::Submit { task: id, request });
        let starts = std::iter::from_fn(|| scheduler.poll_action());
        if starts.into_iter().any(|action| matches!(action, Action::Start(_))) {
            return None;
        }
        let why = scheduler.why(id)?;
        let worker = why.workers.iter().find(|worker| {
            !worker.obstacles.iter().any(|found| matches!(found.obstacle, Obstacle::NotOffered { .. }))
        });
        let obstacles = worker.map(|worker| {
            let all: Vec<String> = worker.obstacles.iter().map(|found| found.obstacle.to_string()).collect();
            format!("{}: {}", worker.host, all.join("; "))
        });
        Some((task, obstacles.unwrap_or_else(|| "no machine offers it".to_owned())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_is_two_spans_where_its_slot_came_in_the_middle() {
        let fetch = SimSpan {
            worker: 3,
            attempt: AttemptId { task: TaskId::new(1), attempt: 1 },
            task: TaskType::PreCommit2,
            sector: sealtasks::SectorId::new(1000, 7),
            phase: SpanPhase::Fetch,
            from: Millis::new(10),
            to: Millis::new(30),
            gpus: Vec::new(),
            complete: true,
        };
        let phases = |slot: Option<u64>| {
            let mut spans = Vec::new();
            closed(&mut spans, &fetch, slot);
            spans.iter().map(|span| (span.phase, span.from, span.to)).collect::<Vec<_>>()
        };
        assert_eq!(phases(Some(10)), [(Phase::Fetch, 10, 30)]);
        assert_eq!(phases(Some(20)), [(Phase::Stage, 10, 20), (Phase::Fetch, 20, 30)]);
        assert_eq!(phases(Some(40)), [(Phase::Stage, 10, 30)]);
        assert_eq!(phases(None), [(Phase::Stage, 10, 30)]);
    }
}
