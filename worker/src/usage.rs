//! What an executor took of the machine: its peak of memory and its processor time, as the kernel tells when it has ended.
//! Never: reaps the process; whoever started it does.

use std::sync::{Arc, OnceLock};

use nix::libc;
use tokio::sync::oneshot;

/// What a process and those that it waited for took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The most memory that one of them had at a time, mapped files included (bytes).
    pub peak_bytes: u64,
    /// Processor time of all of them, in user and kernel mode (milliseconds).
    pub cpu_ms: u64,
}

/// What a running process took so far: its own peak of memory, and its processor time with that of the children that it
/// waited for. `None`: it has ended, or the kernel does not tell.
pub(crate) fn so_far(pid: u32) -> Option<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kib: u64 = peak.split_ascii_whitespace().next()?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 to 17; the program's name stands in parentheses before the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_ascii_whitespace().skip(11).take(4);
    let ticks = times.filter_map(|field| field.parse::<u64>().ok()).fold(0_u64, u64::saturating_add);
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    Some(Usage {
        peak_bytes: peak_kib.saturating_mul(1 << 10),
        cpu_ms: ticks.saturating_mul(1000).checked_div(per_second)?,
    })
}

/// A process that is watched until it ends.
pub(crate) struct Watch {
    ended: oneshot::Receiver<()>,
    found: Arc<OnceLock<Usage>>,
}

impl Watch {
    /// Watches a child of this process. A thread waits for it: the kernel tells what a process took only while nobody has
    /// reaped it.
    pub(crate) fn start(pid: u32) -> Self {
        let found = Arc::new(OnceLock::new());
        let (told, ended) = oneshot::channel();
        let write = Arc::clone(&found);
        let wait = move || {
            if let Some(usage) = wait(pid) {
                let _ = write.set(usage);
            }
            // Nobody may wait any more.
            let _ = told.send(());
        };
        if let Err(error) = std::thread::Builder::new().name("executor-wait".into()).spawn(wait) {
            tracing::warn!(%error, "what an executor takes is not measured");
        }
        Self { ended, found }
    }

    /// Where its usage will be, once it has ended.
    pub(crate) fn found(&self) -> Arc<OnceLock<Usage>> {
        Arc::clone(&self.found)
    }

    /// Returns when the process has ended, or cannot be watched.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

/// Waits for the end of a child and leaves it to be reaped. `None`: it is none of ours, or was reaped before.
#[expect(
    unsafe_code,
    reason = "no safe wrapper asks waitid for the usage of a process that stays to be reaped"
)]
fn wait(pid: u32) -> Option<Usage> {
    loop {
        // SAFETY: both structs are plain numbers, for which zero is a value.
        let (mut about, mut usage) =
            unsafe { (std::mem::zeroed::<libc::siginfo_t>(), std::mem::zeroed::<libc::rusage>()) };
        // SAFETY: the kernel's waitid has a fifth argument, a rusage to fill; both pointers are to live values of ours.
        let done = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PID,
                libc::c_long::from(pid),
                &raw mut about,
                libc::WEXITED | libc::WNOWAIT,
                &raw mut usage,
            )
        };
        match done {
            0 => return Some(of(&usage)),
            _ if nix::errno::Errno::last() == nix::errno::Errno::EINTR => {}
            _ => return None,
        }
    }
}

fn of(usage: &libc::rusage) -> Usage {
    let millis = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000);
        seconds.saturating_add(u64::try_from(time.tv_usec).unwrap_or(0) / 1000)
    };
    Usage {
        // Linux counts in KiB.
        peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1 << 10),
        cpu_ms: millis(usage.ru_utime).saturating_add(millis(usage.ru_stime)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn what_a_process_took_is_known_when_it_has_ended_and_it_can_still_be_reaped() {
        // A hundred MiB in a variable of the shell's.
        let script = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); test ${#x} = 100000000; exit 7";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut watch = Watch::start(child.id().unwrap());
        let found = watch.found();
        watch.ended().await;
        let usage = *found.get().unwrap();
        assert!((100 << 20) * 9 / 10 < usage.peak_bytes && usage.peak_bytes < 2 << 30, "{usage:?}");
        assert!(usage.cpu_ms > 0, "{usage:?}");
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
    }

    #[test]
    fn what_a_process_took_so_far_is_seen_from_outside() {
        let usage = so_far(std::process::id()).unwrap();
        assert!((1 << 20..1 << 40).contains(&usage.peak_bytes), "{usage:?}");
        let more = || so_far(std::process::id()).unwrap().cpu_ms;
        while more() <= usage.cpu_ms {}
        assert_eq!(so_far(u32::MAX), None);
    }

    #[tokio::test]
    async fn one_that_is_not_ours_is_not_waited_for() {
        let mut watch = Watch::start(1);
        watch.ended().await;
        assert_eq!(watch.found().get(), None);
    }
}
