//! What moving a file costs: disk to loopback to disk with the final fsync, beside a local copy and beside Lotus's way.
//!
//! `cargo bench -p stores --bench transfer` takes some minutes and 12 GiB below `TMPDIR`, which should be a real disk
//! (`-- --mib 1024` for a smaller large file, `-- --streams 5` for another number of connections).
//! Rounds are interleaved, since a disk's speed varies; medians are compared. `--quick` (what `cargo test` runs) moves a
//! few MiB and judges nothing. Both ends run in this process: CPU is that of both.

#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod ours;
mod rivals;
mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use ours::Yard;
use table::{Limit, Row, median, print};

/// How much is moved.
pub struct Sizes {
    /// Of the one large file (bytes).
    pub file: u64,
    /// Of a cache directory's layers (bytes each).
    pub layer: u64,
    /// Directories of 24 files of 4 KiB.
    pub small_dirs: u64,
    pub rounds: usize,
}

const FULL: Sizes = Sizes { file: 4 << 30, layer: 96 << 20, small_dirs: 417, rounds: 5 };
const QUICK: Sizes = Sizes { file: 48 << 20, layer: 1 << 20, small_dirs: 3, rounds: 1 };

/// What one run took.
#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

pub fn cost_of<T>(job: impl FnOnce() -> T) -> (T, Cost) {
    let (began, before) = (Instant::now(), cpu());
    let result = job();
    (result, Cost { wall: began.elapsed(), cpu: cpu() - before })
}

fn cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).expect("this process's use");
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
    };
    micros(used.user_time()) + micros(used.system_time())
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick") || !std::env::args().any(|arg| arg == "--bench");
    let mut sizes = if quick { QUICK } else { FULL };
    let number = |name: &str| {
        let given = std::env::args().skip_while(|arg| arg != name).nth(1);
        given.and_then(|given| given.parse::<u64>().ok())
    };
    if let Some(mib) = number("--mib") {
        // For a disk without room for the whole.
        sizes.file = mib << 20;
        sizes.layer = sizes.layer.min(sizes.file / 11);
        sizes.small_dirs = sizes.small_dirs.min(mib.div_ceil(10));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("load before: {}", load());
    let yard = runtime.block_on(Yard::new(&sizes));
    if let Some(streams) = number("--streams") {
        yard.set_streams(usize::try_from(streams).unwrap_or(usize::MAX));
    }
    let mut runs = Runs::default();
    for round in 0..=sizes.rounds {
        let mut one = Runs::default();
        one.round(&runtime, &yard, &sizes);
        // The first one warms the buffers up.
        if round > 0 || quick {
            println!("{}", one.line(&sizes));
            runs.extend(one);
        }
    }
    println!("load after: {}", load());
    print(&runs.rows(&sizes, &yard), quick);
}

#[derive(Default)]
struct Runs {
    copy: Vec<Cost>,
    lotus: Vec<Cost>,
    verified: Vec<Cost>,
    unverified: Vec<Cost>,
    directory: Vec<Cost>,
    small: Vec<Cost>,
    create: Vec<Cost>,
}

impl Runs {
    fn round(&mut self, runtime: &tokio::runtime::Runtime, yard: &Yard, sizes: &Sizes) {
        let scratch = yard.scratch();
        let large = yard.large();
        let clean = |path: &Path| std::fs::remove_file(path).expect("removed");
        let copied = scratch.join("copied");
        rivals::forget(&large);
        self.copy.push(cost_of(|| rivals::copy_direct(&large, &copied, yard.streams())).1);
        clean(&copied);
        rivals::forget(&large);
        self.verified.push(yard.fetch_large(runtime, true));
        rivals::forget(&large);
        self.lotus.push(cost_of(|| rivals::lotus_shape(&large, &copied)).1);
        clean(&copied);
        rivals::forget(&large);
        self.unverified.push(yard.fetch_large(runtime, false));
        self.directory.push(yard.fetch_directory(runtime));
        self.create.push(rivals::create_small(&scratch, sizes.small_dirs));
        self.small.push(yard.fetch_small(runtime, sizes.small_dirs));
    }

    fn extend(&mut self, other: Self) {
        self.copy.extend(other.copy);
        self.lotus.extend(other.lotus);
        self.verified.extend(other.verified);
        self.unverified.extend(other.unverified);
        self.directory.extend(other.directory);
        self.small.extend(other.small);
        self.create.extend(other.create);
    }

    fn line(&self, sizes: &Sizes) -> String {
        let rate = |runs: &[Cost]| median(runs, |cost| sizes.file as f64 / 1e6 / cost.wall.as_secs_f64());
        format!(
            "round: local copy {:.0} MB/s, verified {:.0}, Lotus's shape {:.0}, unverified {:.0}; load {}",
            rate(&self.copy),
            rate(&self.verified),
            rate(&self.lotus),
            rate(&self.unverified),
            load()
        )
    }

    fn rows(&self, sizes: &Sizes, yard: &Yard) -> Vec<Row> {
        let wall = |runs: &[Cost]| median(runs, |cost| cost.wall.as_secs_f64());
        let gb = sizes.file as f64 / 1e9;
        let mbs = |bytes: u64, runs: &[Cost]| bytes as f64 / 1e6 / wall(runs);
        let cpu = |bytes: f64, runs: &[Cost]| median(runs, |cost| cost.cpu.as_secs_f64()) / bytes;
        let file = sizes.file;
        let verified = mbs(file, &self.verified);
        let directory = mbs(yard.directory_bytes, &self.directory);
        let files = (sizes.small_dirs * ours::FILES as u64) as f64;
        let (small, create) = (files / wall(&self.small), files / wall(&self.create));
        vec![
            Row::info(
                "local copy, direct I/O, as many reads and writes as ours",
                mbs(file, &self.copy),
                "MB/s",
            ),
            Row::info("Lotus's shape: sendfile, 1 MiB reads, buffered", mbs(file, &self.lotus), "MB/s"),
            Row::info("  its CPU", cpu(gb, &self.lotus), "s/GB"),
            Row::info("one file, verified, direct I/O at both ends", verified, "MB/s"),
            Row::new("  of the local copy", verified / mbs(file, &self.copy), "x", Limit::AtLeast(0.90)),
            Row::new("  of Lotus's shape", verified / mbs(file, &self.lotus), "x", Limit::AtLeast(2.5)),
            Row::new("  CPU of both ends", cpu(gb, &self.verified), "s/GB", Limit::AtMost(1.0)),
            Row::info("one file, unverified", mbs(file, &self.unverified), "MB/s"),
            Row::new("  CPU of both ends", cpu(gb, &self.unverified), "s/GB", Limit::AtMost(0.6)),
            Row::info("cache directory of 24 files, verified", directory, "MB/s"),
            Row::new("  of the one file", directory / verified, "x", Limit::AtLeast(0.95)),
            Row::info("files of 4 KiB made here, each synced", create, "files/s"),
            Row::info("files of 4 KiB fetched, verified, each synced", small, "files/s"),
            Row::new("  of making them here", small / create, "x", Limit::AtLeast(0.5)),
        ]
    }
}
