//! A manager and workers, each a process.

use std::path::Path;

use crate::system::trio::NO_LOCAL_TASKS;
use crate::system::{Daemon, ok, sealyard};

/// A manager of sectors of this size, which has no tasks and no storage of its own.
pub(crate) fn manager(home: &Path, sector_size: &str) -> Daemon {
    ok(sealyard(home).args([
        "init",
        "--actor",
        "t01000",
        "--sector-size",
        sector_size,
        "--no-local-storage",
    ]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    manager
}

/// A worker of that manager, which does these tasks.
pub(crate) fn worker(home: &Path, name: &str, tasks: &[&str]) -> Daemon {
    let mut worker = sealyard(home);
    worker.args(["worker", "run", "--name", name, "--worker-repo", name, "--address", "127.0.0.1:0"]);
    let mut worker = Daemon::start(name, worker.args(tasks));
    worker.expect("registered");
    worker
}
