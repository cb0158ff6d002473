//! The whole program's figures beside their limits, each by one command:
//!
//! `cargo bench -p sealyard --bench program -- stages`: what a stage of sealing takes through a manager, a worker and an
//! executor, each a process, over the bare call of the proofs room.
//!
//! `-- jobs`: `sealyard sealing jobs` at a manager with 10 000 of them.
//!
//! `-- idle`: the processor time of a manager whose ten workers have nothing to do.
//!
//! `--quick` makes each small. Without `--bench`, as in a test run, all of them run so.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod bare;
mod idle;
mod jobs;
#[path = "../../../manager/benches/figures/judged.rs"]
mod judged;
mod stages;
#[path = "../../../tests/system/mod.rs"]
mod system;
#[path = "../../../manager/tests/world/mod.rs"]
mod world;
mod yard;

use std::process::ExitCode;

use judged::{Size, verdict};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let size = Size::asked(&arguments);
    let all = ["stages", "jobs", "idle"].iter().all(|word| !has(word));
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    if all || has("stages") {
        stages::table(size);
    }
    if all || has("jobs") {
        jobs::table(size);
    }
    if all || has("idle") {
        idle::table(size);
    }
    ExitCode::SUCCESS
}

/// The value in the middle, in milliseconds.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
