//! Finding and killing executors, also those of an earlier life of the worker.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::journal::ProcessMark;

/// How long a killed process may take to go, and how often that is looked at.
const DEATH_MAX: Duration = Duration::from_secs(30);
const DEATH_POLL: Duration = Duration::from_millis(20);

/// When a process began, so that another one with its id is told from it: boot id and clock ticks since boot. `None`
/// when there is no such process.
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // The program's name stands in parentheses and may hold anything, so fields are counted behind the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None; // Dead, only not yet waited for.
    }
    let ticks = fields.nth(18)?; // starttime is field 22, the state field 3
    Some(format!("{}:{ticks}", boot.trim()))
}

/// The processes whose working directory is `dir`. An executor's is its call's, and nobody else's.
pub(crate) fn working_in(dir: &Path) -> Vec<ProcessMark> {
    let Ok(dir) = dir.canonicalize() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mark = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let there = std::fs::read_link(entry.path().join("cwd")).ok()? == dir;
        if there { Some(ProcessMark { pid, starttime: start_time(pid)? }) } else { None }
    };
    entries.flatten().filter_map(mark).collect()
}

/// Kills a process group at once. One that is gone is no error.
pub(crate) fn kill_group(leader: u32) {
    if let Ok(pid) = i32::try_from(leader) {
        // ESRCH: it has ended. Nothing else can go wrong with a group of our own.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Kills an executor that outlived its worker, if it still runs, and waits until it is gone.
///
/// # Errors
/// It does not go: it hangs in the kernel, usually on a disk.
pub(crate) async fn end_leftover(mark: &ProcessMark) -> Result<(), String> {
    let runs = || start_time(mark.pid).is_some_and(|starttime| starttime == mark.starttime);
    if !runs() {
        return Ok(());
    }
    tracing::warn!(pid = mark.pid, "ending an executor that an earlier worker left behind");
    kill_group(mark.pid);
    if let Ok(pid) = i32::try_from(mark.pid) {
        // A member of a group whose leader is gone is not reached by its own id's group.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let gone = async {
        while runs() {
            tokio::time::sleep(DEATH_POLL).await;
        }
    };
    let late = format!("executor process {} does not end although killed; a disk may hang", mark.pid);
    tokio::time::timeout(DEATH_MAX, gone).await.map_err(|_| late)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_leftover_is_found_by_its_directory_and_ended_with_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "cat; true"])
            .stdin(Stdio::piped())
            .current_dir(dir.path())
            .process_group(0)
            .spawn()
            .unwrap();
        let found = working_in(dir.path());
        assert!(found.iter().any(|mark| mark.pid == child.id()), "{found:?}");
        for mark in &found {
            end_leftover(mark).await.unwrap();
        }
        assert!(working_in(dir.path()).is_empty());
        assert_eq!(start_time(child.id()), None, "dead, only not waited for");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn another_process_with_the_same_id_is_left_alone() {
        let own = std::process::id();
        assert!(start_time(own).is_some());
        end_leftover(&ProcessMark { pid: own, starttime: "another boot:1".into() }).await.unwrap();
    }
}
