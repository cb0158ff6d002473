//! Executors that a worker has started ahead of their calls.
#![allow(dead_code, reason = "only some test targets look")]

use std::path::Path;

use super::{COMMAND_MAX, ask_until, executors, json};

/// Crash points that only a worker with spares, or one of these, comes to, at PreCommit2 or Commit1.
pub const POINTS: [&str; 3] = ["worker.ordered", "executor.ordered", "executor.named"];

/// Waits until the worker whose repo has this name tells that all of its spares are ready: their processes.
pub fn ready(home: &Path, worker: &str) -> Vec<u32> {
    let told = || {
        let info = json(home, &["worker", "info", "--worker-repo", worker]);
        let settings = info["settings"].as_array().expect("settings").clone();
        let spares = settings.into_iter().find(|setting| setting["name"] == "spare executors");
        spares.expect("what it tells of spares")["value"].as_str().map(str::to_owned)
    };
    ask_until("two spare executors", COMMAND_MAX, told, |told| told.as_deref() == Some("2 ready of 2"));
    waiting(home, worker)
}

/// Those that wait.
pub fn waiting(home: &Path, worker: &str) -> Vec<u32> {
    executors(&home.join(worker), "spare")
}
