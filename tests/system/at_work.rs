//! Executors at work below a directory, and what each of them does.
#![allow(dead_code, reason = "only some test targets look")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// An executor at work.
#[derive(Clone, Debug)]
pub struct Executor {
    pub pid: u32,
    /// One of the tasks that were looked for.
    pub task: &'static str,
    /// The name of its worker, and of that one's repo.
    pub worker: &'static str,
    pub sector: u64,
}

/// Those of these workers, whose repos lie in `home`, at these tasks.
pub fn look(home: &Path, workers: &[&'static str], tasks: &[&'static str]) -> Vec<Executor> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| executor(pid, home, workers, tasks)).collect()
}

/// Every process that works in a call's directory of a repo below `home`, also one that was since removed.
pub fn left(home: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_left = |pid: &u32| {
        let within = cwd(*pid).and_then(|cwd| Some(cwd.strip_prefix(home).ok()?.to_owned()));
        within.is_some_and(|path| path.iter().any(|part| part == "calls"))
    };
    pids.filter(is_left).collect()
}

fn cwd(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn executor(pid: u32, home: &Path, workers: &[&'static str], tasks: &[&'static str]) -> Option<Executor> {
    let cwd = cwd(pid)?;
    let worker = workers.iter().find(|name| cwd.starts_with(home.join(name).join("calls")))?;
    // What it has forked looks like it until that becomes another program; it alone leads a session.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let session: u32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(3)?.parse().ok()?;
    if session != pid {
        return None;
    }
    let request: Value = serde_json::from_slice(&fs::read(cwd.join("request.json")).ok()?).ok()?;
    let code = request["work"]["task"].as_str()?.to_ascii_lowercase();
    let task = tasks.iter().find(|task| **task == code)?;
    let sector = request["sector"]["id"]["number"].as_u64()?;
    Some(Executor { pid, task, worker, sector })
}
