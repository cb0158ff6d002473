//! What a new executor's process is made to do between fork and exec. Never: starts it.

use std::os::fd::OwnedFd;

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

/// Gives the child `reader` as descriptor 3.
#[expect(unsafe_code, reason = "the standard library has no safe way to hand over a further descriptor")]
pub(crate) fn hand_over(command: &mut Command, reader: OwnedFd) -> std::io::Result<()> {
    use std::mem::ManuallyDrop;
    use std::os::fd::FromRawFd as _;

    use nix::fcntl::{FcntlArg, fcntl};

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
