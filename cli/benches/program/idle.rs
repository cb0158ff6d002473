//! The processor time of a manager whose workers, a process each, have nothing to do. Fleets of thousands are simulated:
//! `cargo bench -p manager --bench figures -- idle`.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::{Size, verdict, yard};

/// The part of a core that it may take.
const MOST: f64 = 0.001;

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
    let (begun, before) = (Instant::now(), processor_time(manager.id()));
    // What is measured is that nothing happens for so long.
    let (_quiet, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(span);
    let part = (processor_time(manager.id()) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    drop(fleet);
    println!(
        "idle with {workers} workers, a process each   {:.3} % of a core   <= {} %   {}",
        part * 100.0,
        MOST * 100.0,
        verdict(part <= MOST)
    );
}

/// Time on processors so far, all threads of a process.
fn processor_time(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let spent = |thread: std::io::Result<std::fs::DirEntry>| -> u64 {
        let text =
            thread.ok().and_then(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
        text.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(spent).sum())
}
