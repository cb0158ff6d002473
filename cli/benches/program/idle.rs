//! The processor time of a manager whose workers, a process each, have nothing to do. Fleets of thousands are simulated:
//! `cargo bench -p manager --bench figures -- idle`.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::system::life;
use crate::{Size, verdict, yard};

/// The part of a core that it may take.
const MOST: f64 = 0.001;
/// In a second of a processor's time, as the kernel tells it.
const TICKS: f64 = 100.0;

pub(crate) fn table(size: Size) {
    let (workers, span) = match size {
        Size::Quick => (1, Duration::from_millis(200)),
        // Several heartbeats of each.
        Size::Whole => (10, Duration::from_secs(60)),
    };
    let home =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let manager = yard::manager(home.path(), "512MiB");
    let name = |at: usize| format!("w{at}");
    let fleet: Vec<_> =
        (0..workers).map(|at| yard::worker(home.path(), &name(at), &["--precommit1"])).collect();
    let (begun, (_, before)) = (Instant::now(), life(manager.id()));
    // What is measured is that nothing happens for so long.
    let (_quiet, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(span);
    let (_, after) = life(manager.id());
    let part = (after - before) as f64 / TICKS / begun.elapsed().as_secs_f64();
    drop(fleet);
    println!(
        "idle with {workers} workers, a process each   {:.3} % of a core   <= {} %   {}",
        part * 100.0,
        MOST * 100.0,
        verdict(part <= MOST)
    );
}
