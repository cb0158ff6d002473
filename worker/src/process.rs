//! Finding and killing executors, also those of an earlier life of the worker.

use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
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
    let gone = async {
        while runs() {
            tokio::time::sleep(DEATH_POLL).await;
        }
    };
    let late = format!("executor process {} does not end although killed; a disk may hang", mark.pid);
    tokio::time::timeout(DEATH_MAX, gone).await.map_err(|_| late)
}
