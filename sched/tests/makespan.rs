//! A small set of traces: no schedule beats the bound, and ours stays near it. `cargo bench -p sched --bench makespan` runs
//! the full set.

use sched::sim::bound::lower_bound;
use sched::sim::lotus::{Lotus, LotusOptions};
use sched::sim::trace::{SHIPPED, Trace};
use sched::sim::{Engine, Scheduler, Settings};
use sched::{Options, Sched};
use sealtasks::ResourceTable;

/// Sectors arrive for a day, so that a trace takes a second here. Begin and end weigh more then than in a week.
const HOURS: (u64, u64) = (20, 28);
/// So much may the mean over these traces be over the bound.
const MEAN_MOST: f64 = 1.10;

fn makespan<S: Scheduler>(scheduler: S, trace: &Trace) -> u64 {
    let engine = Engine::new(scheduler, &trace.cluster, trace.workload.clone(), Settings::default(), ());
    let report = engine.run().expect("nothing watches");
    assert_eq!((report.unfinished, report.failed, report.refused), (0, 0, 0), "seed {}", trace.seed);
    report.makespan.get()
}

#[test]
fn no_schedule_beats_the_bound_and_ours_stays_near_it() {
    let mut ratios = Vec::new();
    for seed in SHIPPED.into_iter().take(6) {
        let trace = Trace::drawn_over(seed, HOURS);
        let bound = lower_bound(&trace.cluster, &trace.workload, &ResourceTable::builtin());
        let bound = bound.expect("every trace can be done").makespan().get();
        let ours = makespan(Sched::new(Options { seed, ..Options::default() }), &trace);
        let lotus = makespan(Lotus::new(LotusOptions { seed, ..LotusOptions::default() }), &trace);
        assert!(ours >= bound && lotus >= bound, "seed {seed}: bound {bound}, ours {ours}, Lotus {lotus}");
        ratios.push(ours as f64 / bound as f64);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean <= MEAN_MOST, "{mean}: {ratios:?}");
}

#[test]
fn a_seed_is_a_trace() {
    assert_eq!(Trace::drawn(SHIPPED[0]), Trace::drawn(SHIPPED[0]));
    assert_ne!(Trace::drawn(SHIPPED[0]).workload, Trace::drawn(SHIPPED[1]).workload);
}
