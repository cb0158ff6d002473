//! What a new executor's process is made to do between fork and exec. Never: starts it.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::process;

/// Has the child lead a session of its own, and not begin when this process has died.
#[expect(unsafe_code, reason = "the standard library has no safe way to lead a session")]
pub(crate) fn set_apart(command: &mut Command) {
    let worker = std::process::id();
    // SAFETY: between fork and exec only `setsid` and `getppid` are called, which are async-signal-safe; nothing is
    // allocated.
    unsafe { command.pre_exec(move || process::set_apart(worker)) };
}

/// Puts the child on these CPUs and into the control group with this `cgroup.procs`, before its program begins: one that is put
/// there later has started threads and processes elsewhere by then. CPUs of which none is there are none of its affair.
#[expect(
    unsafe_code,
    reason = "the standard library has no safe way to set the affinity or the group of a child"
)]
pub(crate) fn put_in(command: &mut Command, cpus: Option<CpuSet>, group: Option<File>) {
    let in_child = move || {
        if let Some(cpus) = &cpus {
            // Only its parent can say what became of it.
            let _ = sched_setaffinity(Pid::from_raw(0), cpus);
        }
        // 0 is whoever writes it.
        group.as_ref().map_or(Ok(0), |group| nix::unistd::write(group, b"0"))?;
        Ok(())
    };
    // SAFETY: between fork and exec only `sched_setaffinity` and `write` are called, which are plain system calls; nothing is
    // allocated.
    unsafe { command.pre_exec(in_child) };
}

/// Leaves a file open in the child, and in what that starts: a lock on it is held until all of them have ended.
#[expect(unsafe_code, reason = "the standard library closes every descriptor when another program begins")]
pub(crate) fn keep_open(command: &mut Command, file: File) {
    let in_child = move || fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(Into::into);
    // SAFETY: between fork and exec only `fcntl` is called, which is async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(in_child) };
}

/// Gives the child `reader` as descriptor 3.
#[expect(unsafe_code, reason = "the standard library has no safe way to hand over a further descriptor")]
pub(crate) fn hand_over(command: &mut Command, reader: OwnedFd) -> std::io::Result<()> {
    use std::mem::ManuallyDrop;
    use std::os::fd::FromRawFd as _;

    // Above 3, because duplicating a descriptor onto itself would leave it to be closed on exec.
    let high = fcntl(&reader, FcntlArg::F_DUPFD_CLOEXEC(10))?;
    // SAFETY: `fcntl` has just made this descriptor and nothing else owns it.
    let reader = unsafe { OwnedFd::from_raw_fd(high) };
    let in_child = move || {
        // SAFETY: descriptor 3 need not be open; `dup2` replaces it, and it is never closed through this value.
        let mut third = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(3) });
        nix::unistd::dup2(&reader, &mut third).map_err(Into::into)
    };
    // SAFETY: between fork and exec only `dup2` is called, which is async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}
