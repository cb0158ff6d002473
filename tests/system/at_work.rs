//! Executors at work below a directory, and what each of them does.
#![allow(dead_code, reason = "only some test targets look")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::SEALYARD;

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

fn executor(pid: u32, home: &Path, workers: &[&'static str], tasks: &[&'static str]) -> Option<Executor> {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let worker = workers.iter().find(|name| cwd.starts_with(home.join(name).join("calls")))?;
    // What it has forked looks like it until that becomes another program; it alone leads a session.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let session: u32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(3)?.parse().ok()?;
    if session != pid {
        return None;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let task = words.find_map(|word| tasks.iter().find(|task| task.as_bytes() == word))?;
    let request: Value = serde_json::from_slice(&fs::read(cwd.join("request.json")).ok()?).ok()?;
    let sector = request["sector"]["id"]["number"].as_u64()?;
    Some(Executor { pid, task, worker, sector })
}

/// The executor, but slow enough to be met at work: a task of 2 KiB takes milliseconds.
pub fn slow_program(home: &Path) -> String {
    let path = home.join("slowly");
    fs::write(&path, format!("#!/bin/sh\nsleep 0.4\nexec {SEALYARD} exec \"$@\"\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path.to_string_lossy().into_owned()
}
