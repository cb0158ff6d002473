//! The examples are read, run and judged; every kind of mistake in a file is told.

use super::ceiling::ceiling;
use super::cluster::{Cluster, Flow};
use super::figures::{Figures, figures};
use super::gantt::{SPANS_MAX, Window, svg};
use super::run::{impossible, run};
use super::timeline::{Phase, Timeline};
use super::{file, table};
use crate::args::SchedulerKind;
use sealtasks::TaskType;

const ALL_IN_ONE: &str = include_str!("../../../examples/clusters/all-in-one.toml");
const FAULTS: &str = include_str!("../../../examples/clusters/faults.toml");

/// A small cluster that works; the tests below break it in one place each.
const SMALL: &str = r#"horizon = "2 days"

[[machine]]
name = "one"
cpus = 64
memory = "256 GiB"
gpus = 1
tasks = ["AP", "PC1", "PC2", "C1", "C2", "FIN", "GET"]

[[machine.path]]
name = "disk"
size = "40 TiB"
seal = true
store = true

[[arrivals]]
sectors = "cc"
backlog = 20
"#;

fn read(text: &str) -> Cluster {
    file::parse("c.toml", text).expect("a good file")
}

fn simulated(cluster: &Cluster, scheduler: SchedulerKind) -> (Timeline, Figures) {
    let timeline = run(cluster, scheduler, |_| {}).expect("no rule is watched");
    let ceiling = ceiling(cluster).expect("something limits it");
    let found = figures(cluster, scheduler.name(), &timeline, &ceiling);
    (timeline, found)
}

/// What must be so of every run.
#[track_caller]
fn sound(cluster: &Cluster, timeline: &Timeline, found: &Figures) {
    const ROUNDING: f64 = 1e-9;
    for machine in &found.machines {
        let shares = [Some(machine.cpu), Some(machine.memory), machine.gpu, Some(machine.fetching)];
        for share in shares.into_iter().flatten() {
            assert!((0.0..=1.0 + ROUNDING).contains(&share), "{machine:?}");
        }
    }
    for task in &found.tasks {
        if let Some(slots) = task.slots {
            assert!(task.running_mean <= slots as f64 + ROUNDING, "{task:?}");
        }
    }
    for path in &found.paths {
        assert!(path.peak_bytes <= path.size_bytes, "{path:?}");
    }
    // Whatever is finished was worked on within the run. Tasks take up to their spread less than the ceiling counts with.
    let sectors = &found.sectors;
    let days = timeline.horizon as f64 / super::figures::DAY;
    assert!(sectors.finished as f64 <= sectors.ceiling_per_day * days * 1.05, "{sectors:?}");
    assert_eq!(sectors.arrived, sectors.finished + sectors.under_way + sectors.held_back);
    for span in &timeline.spans {
        assert!(span.from <= span.to && span.to <= timeline.horizon, "{span:?}");
    }
    gpus_are_not_shared_out_twice(cluster, timeline);
}

/// PreCommit2 and Commit2 take a whole GPU each in all examples.
fn gpus_are_not_shared_out_twice(cluster: &Cluster, timeline: &Timeline) {
    for (machine, (name, group)) in
        cluster.each_machine().enumerate().filter(|(_, (_, g))| !g.gpus.is_empty())
    {
        let mut changes: Vec<(u64, i64)> = Vec::new();
        for span in timeline.spans.iter().filter(|span| span.machine == machine && span.phase.holds_slot()) {
            let whole =
                cluster.tasks.get(&span.task).is_some_and(|task| task.resources.gpu_utilization >= 1.0);
            changes.extend(whole.then_some([(span.from, 1), (span.to, -1)]).into_iter().flatten());
        }
        changes.sort_unstable(); // an end comes before a beginning at the same instant
        let mut held = 0;
        for (at, change) in changes {
            held += change;
            assert!(held <= group.gpus.len() as i64, "{held} whole GPUs are held on {name} at {at}");
        }
    }
}

#[test]
fn an_all_in_one_machine_is_held_down_by_its_gpu() {
    let cluster = read(ALL_IN_ONE);
    assert_eq!(impossible(&cluster), None);
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    assert_eq!((found.bottleneck.kind, found.bottleneck.group.as_deref()), ("gpu", Some("epyc")));
    // 24 h over 23m44s and 16m06s on one GPU.
    let by_hand = 1440.0 / (23.0 + 44.0 / 60.0 + 16.0 + 6.0 / 60.0);
    assert!((found.sectors.ceiling_per_day - by_hand).abs() < 0.01, "{:?}", found.sectors);
    assert!(found.sectors.per_day > by_hand * 0.97, "{:?}", found.sectors);
    let text = table::table(&cluster, &found);
    assert!(text.contains("Bottleneck  GPUs of epyc (PC2, C2): 100 % in use; PC2 waits"), "{text}");
}

/// A small cluster of two or three kinds of machines, all its numbers drawn from a seed.
fn random_cluster(seed: u64) -> Cluster {
    let mut random = sched::sim::SplitMix::new(seed);
    let mut cluster = read(SMALL);
    let one = cluster.machines[0].clone();
    let mut group = |name: &str, tasks: &[TaskType], gpus: u64| {
        let mut machine = one.clone();
        machine.name = name.to_owned();
        machine.count = random.within(1, 3);
        machine.cpus = random.within(8, 96);
        machine.memory = random.within(256, 600) << 30;
        machine.memory_used = random.within(0, 20) << 30;
        machine.swap = random.within(0, 128) << 30;
        machine.gpus = (0..gpus).map(|number| number.to_string()).collect();
        machine.tasks = tasks.to_vec();
        machine.bandwidth = random.within(100_000_000, 3_000_000_000);
        machine.speed = [(TaskType::PreCommit1, random.within(500, 2000))].into();
        if random.chance(1, 2) {
            machine.caps.insert(TaskType::PreCommit1, random.within(1, 6) as u32);
        }
        if random.chance(1, 3) {
            machine.stagger.insert(TaskType::PreCommit1, sched::Millis::new(random.within(1, 3_600_000)));
        }
        machine.paths[0].size = random.within(2, 20) << 40;
        machine
    };
    let all = super::cluster::TASKS;
    let (pc1, rest) = ([TaskType::AddPiece, TaskType::PreCommit1], &all[2..]);
    let gpus = seed % 3;
    cluster.machines =
        vec![group("all", &all, gpus), group("pc1", &pc1, 0), group("gpu", rest, 1 + seed % 2)];
    cluster.in_pipeline_max = (seed.is_multiple_of(4)).then_some(5 + seed % 20);
    cluster.seed = seed;
    let flow = if seed.is_multiple_of(2) {
        Flow::Backlog(40 + seed % 60)
    } else {
        Flow::Random(10_000 + seed % 50_000)
    };
    cluster.arrivals[0] = super::cluster::Arrivals { deals: seed.is_multiple_of(5), flow };
    cluster
}

#[test]
fn no_schedule_of_any_cluster_beats_its_ceiling() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=60 {
        let cluster = random_cluster(seed);
        for scheduler in [SchedulerKind::Sealyard, SchedulerKind::Lotus] {
            let (timeline, found) = simulated(&cluster, scheduler);
            sound(&cluster, &timeline, &found);
            kinds.insert(found.bottleneck.kind);
        }
    }
    assert!(kinds.len() >= 4, "the clusters are held down by too few things: {kinds:?}");
}

/// The engine integrates use as it goes; ours is made from the spans afterwards.
#[test]
fn use_is_what_the_engine_counted() {
    use sched::sim::{Engine, Settings};
    let cluster = Cluster { warm_up: sched::Millis::ZERO, ..read(SMALL) };
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    assert_eq!(found.sectors.finished, 20, "the backlog is done");
    let world = super::world::world(&cluster);
    let settings = Settings { resources: world.resources.clone(), ..Settings::default() };
    let options = sched::Options { resources: world.resources, seed: cluster.seed, ..Default::default() };
    let engine = Engine::new(sched::Sched::new(options), &world.cluster, world.workload, settings, ());
    let report = engine.run().expect("nobody watches");
    assert_eq!(report.makespan.get(), found.counted_to_ms);
    let (ours, its) = (&found.machines[0], &report.workers[0]);
    for (ours, its) in [(ours.cpu, its.cpu), (ours.memory, its.memory), (ours.gpu.unwrap_or(0.0), its.gpu)] {
        assert!(ours > 0.0 && (ours - its).abs() < 1e-9, "{ours} is not {its}");
    }
    for task in &found.tasks {
        let kind = sealtasks::TaskType::from_short(task.task).expect("a short code");
        let its = report.waiting[&kind];
        assert_eq!((task.waiting.mean_ms, task.waiting.p99_ms), (its.mean.get(), its.p99.get()), "{task:?}");
    }
}

#[test]
fn a_seed_gives_one_result_and_another_seed_another() {
    let cluster = read(SMALL);
    let (first, _) = simulated(&cluster, SchedulerKind::Sealyard);
    assert_eq!(first, simulated(&cluster, SchedulerKind::Sealyard).0);
    let other = Cluster { seed: 2, ..cluster };
    assert_ne!(first, simulated(&other, SchedulerKind::Sealyard).0);
}

#[test]
fn nothing_runs_on_a_machine_that_is_down() {
    let cluster = read(FAULTS);
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    let names: Vec<String> = cluster.each_machine().map(|(name, _)| name).collect();
    let down = cluster.faults.iter().filter(|fault| fault.kind == super::cluster::FaultKind::Down);
    for fault in down {
        let machine = names.iter().position(|name| *name == fault.machine).expect("a machine of the file");
        let during = |span: &&super::timeline::Span| {
            span.machine == machine && span.from < fault.to.get() && span.to > fault.from.get()
        };
        assert_eq!(timeline.spans.iter().find(during), None, "{fault:?}");
        // What it holds is out of reach: no PreCommit2 elsewhere begins with what its PreCommit1 left there.
        let labels: Vec<u64> = timeline
            .spans
            .iter()
            .filter(|span| span.machine == machine && span.task == TaskType::PreCommit1)
            .map(|span| span.sector)
            .collect();
        let taken = timeline.spans.iter().find(|span| {
            span.task == TaskType::PreCommit2
                && labels.contains(&span.sector)
                && (fault.from.get() + 1..fault.to.get()).contains(&span.from)
                && matches!(span.phase, Phase::Stage | Phase::Fetch)
        });
        assert_eq!(taken, None, "{fault:?}");
        let again = timeline.spans.iter().any(|span| span.machine == machine && span.from >= fault.to.get());
        assert!(again, "{} never works again", fault.machine);
    }
    // A slow machine's PreCommit1 that begin in that time take about twice as long.
    let slow = cluster.faults.iter().find(|fault| fault.machine == "pc1-4").expect("one is slow");
    let begun = timeline.spans.iter().filter(|span| {
        span.machine == 3
            && span.phase == Phase::Run
            && span.task == TaskType::PreCommit1
            && (slow.from.get()..slow.to.get()).contains(&span.from)
    });
    let lengths: Vec<u64> = begun.map(|span| span.to - span.from).collect();
    assert!(!lengths.is_empty() && lengths.iter().all(|length| *length > 5 * 3_600_000), "{lengths:?}");
    assert!(found.sectors.finished > 1000, "the cluster recovers: {:?}", found.sectors);
}

#[test]
fn the_model_of_lotus_runs_the_same_sectors() {
    let cluster = read(SMALL);
    let (ours, found) = simulated(&cluster, SchedulerKind::Sealyard);
    let (lotus, its) = simulated(&cluster, SchedulerKind::Lotus);
    sound(&cluster, &lotus, &its);
    assert_eq!((found.scheduler, its.scheduler), ("sealyard", "lotus"));
    let arrived =
        |timeline: &Timeline| timeline.sectors.iter().map(|sector| sector.arrived).collect::<Vec<_>>();
    assert_eq!(arrived(&ours), arrived(&lotus));
}

#[test]
fn what_the_horizon_cuts_off_counts_until_there() {
    let cluster = read(&SMALL.replace("2 days", "2h"));
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    let labels: Vec<_> = timeline.spans.iter().filter(|span| span.task == TaskType::PreCommit1).collect();
    // Each may reach 64 GiB and all share 10 MiB: three fit into 256 GiB. None ends within two hours.
    assert_eq!(labels.len(), 3);
    assert!(labels.iter().all(|span| span.phase == Phase::Run && span.to == timeline.horizon), "{labels:?}");
    let figures = found.tasks.iter().find(|task| task.task == "PC1").expect("its figures");
    assert!(figures.running_mean > 2.4, "{figures:?}");
    assert!(figures.waiting_at_end > 0, "{figures:?}");
}

#[test]
fn a_cap_is_named_and_counted() {
    let cluster = read(&SMALL.replace("gpus = 1", "gpus = 1\ncaps = { PC1 = 1 }"));
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    assert_eq!((found.bottleneck.kind, found.bottleneck.group.as_deref()), ("cap", Some("one")));
    let by_hand = 1440.0 / (183.0 + 17.0 / 60.0);
    assert!((found.sectors.ceiling_per_day - by_hand).abs() < 1e-6, "{:?}", found.sectors);
    let change = &found.bottleneck.changes[0];
    assert!((change.ceiling_per_day - 2.0 * by_hand).abs() < 1e-6, "{change:?}");
    assert!(
        change.change.contains("one more machine") || change.change.contains("raised by one"),
        "{change:?}"
    );
}

#[test]
fn a_full_pipeline_holds_sectors_back() {
    let cluster = Cluster { in_pipeline_max: Some(2), ..read(&SMALL.replace("= 20", "= 40")) };
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    assert_eq!((found.bottleneck.kind, found.sectors.under_way), ("in_pipeline_max", 2));
    assert!(found.sectors.held_back > 0);
}

#[test]
fn too_little_room_is_seen() {
    let cluster = read(&SMALL.replace("40 TiB", "1 TiB"));
    let (timeline, found) = simulated(&cluster, SchedulerKind::Sealyard);
    sound(&cluster, &timeline, &found);
    assert_eq!(found.bottleneck.kind, "sealing_room", "{:?}", found.bottleneck);
    let more = found.bottleneck.changes.iter().any(|change| change.change.contains("sealing path"));
    assert!(more || found.bottleneck.changes.iter().any(|change| change.change.contains("one more machine")));
}

#[test]
fn streams_bring_what_they_say() {
    let stream = |text: &str| read(&SMALL.replace("backlog = 20", text));
    let even = stream("per_day = 4.5");
    assert_eq!(even.arrivals[0].flow, Flow::Even(4500));
    let (timeline, _) = simulated(&even, SchedulerKind::Sealyard);
    let arrived: Vec<u64> = timeline.sectors.iter().map(|sector| sector.arrived).collect();
    assert_eq!(arrived, (0..9).map(|number| number * 19_200_000).collect::<Vec<u64>>());
    let (timeline, _) = simulated(&stream("per_day = 4.5\npattern = \"random\""), SchedulerKind::Sealyard);
    assert_eq!(timeline.sectors.len(), 9);
}

#[test]
fn a_chart_never_has_more_spans_than_a_browser_bears() {
    let cluster = read(SMALL);
    let (mut timeline, _) = simulated(&cluster, SchedulerKind::Sealyard);
    let whole = Window { from: 0, to: timeline.horizon };
    assert_eq!(whole.bounded(&timeline), whole);
    let one = timeline.spans[0];
    timeline.spans =
        (0..SPANS_MAX as u64 + 5).map(|at| super::timeline::Span { from: at, to: at + 1, ..one }).collect();
    let bounded = whole.bounded(&timeline);
    assert_eq!(bounded, Window { from: 0, to: SPANS_MAX as u64 });
    let drawn = svg(&cluster, &timeline, bounded, "a \"quoted\" <subtitle> & more\u{7}");
    assert_eq!(drawn.matches("<title>").count(), SPANS_MAX);
    assert!(drawn.contains("a &quot;quoted&quot; &lt;subtitle&gt; &amp; more "), "{}", &drawn[..2000]);
}

#[test]
fn a_task_that_fits_nowhere_is_told_with_numbers() {
    let cluster = read(&SMALL.replace("256 GiB", "48 GiB"));
    let (task, why) = impossible(&cluster).expect("PreCommit1 needs 56 GiB");
    assert_eq!(task, TaskType::PreCommit1);
    assert!(why.contains("one:") && why.contains("56") && why.contains("48"), "{why}");
}
