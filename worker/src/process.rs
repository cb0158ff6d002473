//! Executors as processes: how they are found again after their worker died, waited for and ended. Never: what they do.
//!
//! A process id alone says nothing: somebody else may have it by now, who began at another time then. An executor leads a
//! session of its own, works in its call's directory, and has its call's id in its environment.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinError;
use tokio::time::Instant;
use uuid::Uuid;

use crate::journal::ProcessMark;

/// How long a killed process may take to go, and how often that is looked at.
pub(crate) const DEATH_MAX: Duration = Duration::from_secs(30);
const DEATH_POLL: Duration = Duration::from_millis(20);
/// Looks at every process of the machine are made less and less often, down to this.
const DEATH_POLL_MAX: Duration = Duration::from_secs(2);
/// How often a process that is no child of ours is looked at where the kernel has no pidfd (before Linux 5.3).
const ORPHAN_POLL: Duration = Duration::from_millis(250);

/// The variable that tells an executor, and what it starts, for which call it runs.
pub(crate) const CALL_VARIABLE: &str = "SEALYARD_CALL";

/// What the kernel says of one process.
struct Stat {
    dead: bool,
    session: u32,
    ticks: String,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything, so fields are counted behind the last one.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?; // field 3
    let session = fields.nth(2)?.parse().ok()?; // field 6
    let ticks = fields.nth(15)?.to_owned(); // field 22
    Some(Stat { dead: state == "Z" || state == "X", session, ticks })
}

/// When a process began, so that another one with its id is told from it: boot id and clock ticks since boot. `None`
/// when there is no such process, or it is dead and only not yet waited for.
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let found = stat(pid).filter(|stat| !stat.dead)?;
    Some(format!("{}:{}", boot_id()?, found.ticks))
}

fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

fn is_there(mark: &ProcessMark) -> bool {
    start_time(mark.pid).is_some_and(|starttime| starttime == mark.starttime)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes whose working directory is `dir`: an executor works in its call's.
fn working_in(dir: &Path) -> Vec<ProcessMark> {
    let Ok(dir) = dir.canonicalize() else { return Vec::new() };
    let mark = |pid: u32| {
        let there = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()? == dir;
        if there { Some(ProcessMark { pid, starttime: start_time(pid)? }) } else { None }
    };
    processes().filter_map(mark).collect()
}

/// The executor of a call: it works in the call's directory, was started for the call, and leads a session as none of its
/// helpers does. A shell that somebody left in that directory may lead one too.
///
/// # Errors
/// This process ends.
pub(crate) async fn leader(call: Uuid, dir: &Path) -> Result<Option<ProcessMark>, JoinError> {
    let dir = dir.to_owned();
    let find = move || {
        let ours = started_for(call);
        let leads = |mark: &ProcessMark| stat(mark.pid).is_some_and(|found| found.session == mark.pid);
        working_in(&dir).into_iter().find(|mark| ours.contains(mark) && leads(mark))
    };
    tokio::task::spawn_blocking(find).await
}

/// Processes that were started for this call: an executor, and helpers that it left behind.
fn started_for(call: Uuid) -> Vec<ProcessMark> {
    let entry = format!("{CALL_VARIABLE}={call}");
    let mark = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let is_ours = environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes());
        if is_ours { Some(ProcessMark { pid, starttime: start_time(pid)? }) } else { None }
    };
    processes().filter_map(mark).collect()
}

/// Whether a process was started for some call, as an executor or by one.
pub(crate) fn is_executor(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let prefix = format!("{CALL_VARIABLE}=");
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(prefix.as_bytes()))
}

/// Kills a process group at once. One that is gone is no error.
pub(crate) fn kill_group(leader: u32) {
    if let Ok(pid) = i32::try_from(leader) {
        // ESRCH: it has ended. Nothing else can go wrong with a group of our own.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Kills all that is left of a call's executor after its worker died, and waits until it is gone: the journalled process,
/// whatever works in the call's directory, and whatever was started for the call.
///
/// # Errors
/// It does not go: it hangs in the kernel, usually on a disk. Or this process ends.
pub(crate) async fn end_leftovers(mark: Option<&ProcessMark>, call: Uuid, dir: &Path) -> Result<(), String> {
    end_leftovers_by(Instant::now() + DEATH_MAX, mark, call, dir).await
}

/// The same with a time until which they are waited for; they are killed, however late it is.
///
/// # Errors
/// As [`end_leftovers`].
pub(crate) async fn end_leftovers_by(
    end: Instant,
    mark: Option<&ProcessMark>,
    call: Uuid,
    dir: &Path,
) -> Result<(), String> {
    // Every process of the machine is looked at, which on a large one takes too long for a thread that others wait for.
    let left = || async {
        let (mark, dir) = (mark.cloned(), dir.to_owned());
        let look = move || {
            let mut left = working_in(&dir);
            left.extend(started_for(call));
            left.extend(mark.filter(is_there));
            left
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| format!("looking for executors: {error}"))
    };
    let (mut told, mut pause) = (BTreeSet::new(), DEATH_POLL);
    let gone = async {
        loop {
            let found = left().await?;
            if found.is_empty() {
                return Ok(());
            }
            for one in &found {
                if told.insert(one.pid) {
                    tracing::warn!(pid = one.pid, "ending an executor that an earlier worker left behind");
                }
                if let Ok(pid) = i32::try_from(one.pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(DEATH_POLL_MAX);
        }
    };
    // The first look, too: what the kernel says of a process that hangs may hang.
    if let Ok(ended) = tokio::time::timeout_at(end, gone).await {
        return ended;
    }
    let pids: Vec<String> = told.iter().map(u32::to_string).collect();
    let pids = if pids.is_empty() { "(which cannot be told)".to_owned() } else { pids.join(", ") };
    Err(format!("executor process {pids} does not end although killed; a disk may hang"))
}

/// A running process that is no child of ours.
pub(crate) struct Orphan {
    mark: ProcessMark,
    /// `None` where the kernel has none.
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl Orphan {
    /// The process with this mark, if it runs.
    pub(crate) fn find(mark: &ProcessMark) -> Option<Self> {
        // First the descriptor, then the look at who it is: from then on nobody else can get its id unnoticed.
        let descriptor = match pidfd(mark.pid) {
            Ok(descriptor) => watched(descriptor),
            Err(Errno::ESRCH) => return None,
            Err(_) => None,
        };
        is_there(mark).then(|| Self { mark: mark.clone(), descriptor })
    }

    /// How it is found again.
    pub(crate) fn mark(&self) -> &ProcessMark {
        &self.mark
    }

    /// Waits until it has ended. How it ended only its parent is told.
    pub(crate) async fn wait(&self) {
        match &self.descriptor {
            // Readable when the process has ended.
            Some(descriptor) if descriptor.readable().await.is_ok() => {}
            Some(_) | None => {
                while is_there(&self.mark) {
                    tokio::time::sleep(ORPHAN_POLL).await;
                }
            }
        }
    }
}

#[expect(unsafe_code, reason = "neither the standard library nor nix can open a process descriptor")]
fn pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let opened = RawFd::try_from(Errno::result(opened)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

#[expect(unsafe_code, reason = "tokio has no safe way to wait for a process descriptor")]
fn watched(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same one, until it is dropped with the registration.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.ok()
}

/// What a new executor does before it becomes its program: it leads a session of its own, and does not begin at all when
/// its worker has died meanwhile. It works in its call's directory by then, so a worker that starts finds it there
/// however early the other one died. Safe between fork and exec.
pub(crate) fn set_apart(worker: u32) -> io::Result<()> {
    nix::unistd::setsid()?;
    if u32::try_from(nix::unistd::getppid().as_raw()) == Ok(worker) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ECHILD))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that leads a session in `dir` and has a helper that does not end by itself.
    #[expect(unsafe_code, reason = "the standard library has no safe way to lead a session")]
    fn executor(dir: &Path, call: Uuid) -> Child {
        let worker = std::process::id();
        let mut command = Command::new("sh");
        command.args(["-c", "cat; true"]).stdin(Stdio::piped()).current_dir(dir);
        command.env(CALL_VARIABLE, call.to_string());
        // SAFETY: only async-signal-safe calls.
        unsafe { command.pre_exec(move || set_apart(worker)) };
        let child = command.spawn().unwrap();
        // A program that has just begun has no environment yet.
        let begun = std::time::Instant::now();
        while std::fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it has no environment");
            std::thread::yield_now();
        }
        child
    }

    #[tokio::test]
    async fn a_leftover_is_found_by_its_directory_and_ended_with_its_helpers() {
        let dir = tempfile::tempdir().unwrap();
        let call = Uuid::new_v4();
        let mut child = executor(dir.path(), call);
        let found = leader(call, dir.path()).await.unwrap().map(|mark| mark.pid);
        assert_eq!(found, Some(child.id()));
        let other = leader(Uuid::new_v4(), dir.path()).await.unwrap();
        assert_eq!(other, None, "what works there for somebody else is no executor of this call");
        end_leftovers(None, Uuid::new_v4(), dir.path()).await.unwrap();
        assert!(working_in(dir.path()).is_empty());
        assert_eq!(start_time(child.id()), None, "dead, only not waited for");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn others_go_on_while_all_processes_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        tokio::select! {
            biased;
            _ = end_leftovers(None, Uuid::new_v4(), dir.path()) => panic!("it looked on the runtime's own thread"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn helpers_of_an_executor_that_is_dead_are_ended_wherever_they_work() {
        let (dir, call) = (tempfile::tempdir().unwrap(), Uuid::new_v4());
        let mut child = executor(dir.path(), call);
        let _open = child.stdin.take();
        // Between a program's beginning and its environment it is nobody's.
        let is_helper = |mark: &ProcessMark| {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", mark.pid));
            name.is_ok_and(|name| name.trim() != "sh")
        };
        while !(started_for(call).len() == 2 && started_for(call).iter().any(is_helper)) {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(started_for(call).len(), 1);
        end_leftovers(None, call, &dir.path().join("elsewhere")).await.unwrap();
        assert!(started_for(call).is_empty());
    }

    #[tokio::test]
    async fn another_process_with_the_same_id_is_left_alone() {
        let own = std::process::id();
        assert!(start_time(own).is_some());
        let dir = tempfile::tempdir().unwrap();
        for starttime in ["another boot:1".to_owned(), format!("{}:1", boot_id().unwrap())] {
            let mark = ProcessMark { pid: own, starttime };
            assert!(Orphan::find(&mark).is_none());
            end_leftovers(Some(&mark), Uuid::new_v4(), dir.path()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = executor(dir.path(), Uuid::new_v4());
        let mark = ProcessMark { pid: child.id(), starttime: start_time(child.id()).unwrap() };
        let orphan = Orphan::find(&mark).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), orphan.wait()).await.is_err(), "it runs");
        drop(child.stdin.take());
        tokio::time::timeout(DEATH_MAX, orphan.wait()).await.unwrap();
        child.wait().unwrap();
        assert!(Orphan::find(&mark).is_none());
    }
}
