//! The manager's figures beside their limits, each by one command:
//!
//! `cargo bench -p manager --bench figures -- transitions`: durable state changes of tasks by 256 submitters, beside the disk's fsync.
//!
//! `-- restart`: a manager with a million queued tasks and ten million indexed files is killed with -9; how soon its successor
//! places a task and knows everything.
//!
//! `-- idle`: the processor time of a manager whose 10, 1000 and 10 000 simulated workers have nothing to do.
//!
//! `--quick` makes each small. Without `--bench`, as in a test run, all of them run so.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod idle;
mod judged;
mod restart;
mod transitions;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::path::Path;
use std::process::ExitCode;

use judged::{Size, verdict};

/// The program's.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, repo] = arguments.as_slice()
        && word == restart::CHILD
    {
        restart::child(Path::new(repo));
        return ExitCode::SUCCESS;
    }
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let size = Size::asked(&arguments);
    let repo = arguments.iter().position(|argument| argument == "--repo");
    let repo = repo.and_then(|at| arguments.get(at + 1)).map(Into::into);
    let all = ["transitions", "restart", "idle"].iter().all(|word| !has(word));
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    if all || has("transitions") {
        transitions::table(size);
    }
    if all || has("restart") {
        restart::table(size, repo);
    }
    if all || has("idle") {
        idle::table(size);
    }
    ExitCode::SUCCESS
}

/// The value below which this share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
