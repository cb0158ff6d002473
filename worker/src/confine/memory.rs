//! Control groups with a limit on memory, one for each executor, of whichever version is mounted.
//!
//! Version 2 lets a group give limits to those below it only while it has no process itself. A worker therefore moves into
//! [`WORKER`] below the group that it was started in, and its executors' groups are made beside that. Version 1 has no such
//! rule: there they are made below the worker's own group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;

use super::below;
use crate::process;
use crate::resources::read;

/// What the names of executors' groups begin with.
const PREFIX: &str = "sealyard-";
/// The worker's own group where control groups are of version 2; systemd knows it as `DelegateSubgroup`.
const WORKER: &str = "sealyard-worker";
/// What to do about all that can go wrong here.
const ADVICE: &str = "start the worker in a control group of its own, as a systemd service with `Delegate=memory` and \
                      `DelegateSubgroup=sealyard-worker`, or take `memory` out of [executor.*] in config.toml";

/// Of control groups; each has other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    const fn mount(self) -> &'static str {
        match self {
            Self::One => "sys/fs/cgroup/memory",
            Self::Two => "sys/fs/cgroup",
        }
    }

    const fn limit(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    /// The file with a line `oom_kill` and how many processes were ended.
    const fn ended(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events",
        }
    }

    /// The same without the groups below it, where the kernel tells that (version 2 since Linux 5.2).
    const fn ended_here(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events.local",
        }
    }
}

/// The group that controls memory for a process, as `/proc` tells it, and where it is mounted.
#[derive(Debug)]
struct Membership {
    version: Version,
    mount: PathBuf,
    dir: PathBuf,
}

impl Membership {
    /// `of` is a process id, or `self`.
    fn of(root: &Path, of: &str) -> Option<Self> {
        let groups = read(&root.join("proc").join(of).join("cgroup"))?;
        let lines = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        let mut found = None;
        for (controllers, path) in lines {
            // Where version 1 has memory, the group of version 2 that stands beside it has not.
            if controllers.split(',').any(|controller| controller == "memory") {
                found = Some((Version::One, path));
                break;
            }
            if controllers.is_empty() {
                found = Some((Version::Two, path));
            }
        }
        let (version, path) = found?;
        let mount = root.join(version.mount());
        Some(Self { dir: below(&mount, path), mount, version })
    }

    /// The group below which executors' are.
    fn top(&self) -> PathBuf {
        let is_worker = self.dir.file_name().is_some_and(|name| name == WORKER);
        let top = if is_worker { self.dir.parent().unwrap_or(&self.dir) } else { &self.dir };
        // Inside a container the path may be the host's, and the group's files stand at the mount's root.
        if top.is_dir() { top.to_owned() } else { self.mount.clone() }
    }
}

/// Makes sure that limits of `bytes` can be given from now on. With version 2 this process moves into a group of its own.
///
/// # Errors
/// Why they cannot, and what to do.
pub(super) fn prepare(root: &Path, bytes: u64) -> Result<(), String> {
    let own = own(root)?;
    if own.version == Version::Two {
        hand_down(&own.top(), "memory", std::process::id())?;
    }
    // Nothing but a group with a limit shows that one can be had.
    Group::make(root, &format!("probe-{}", std::process::id()), bytes).map(drop)
}

/// Has a group of version 2 give limits to those below it. Its processes are in its way: the worker and what that had started
/// without a limit move into a group of their own.
pub(super) fn hand_down(top: &Path, controller: &str, worker: u32) -> Result<(), String> {
    let control = top.join("cgroup.subtree_control");
    let names = |file: &Path| {
        let text = read(file).unwrap_or_default();
        text.split_ascii_whitespace().any(|name| name == controller)
    };
    if names(&control) {
        return Ok(());
    }
    if !names(&top.join("cgroup.controllers")) {
        return Err(format!(
            "the control group {} was not given control of {controller}; {ADVICE}",
            top.display()
        ));
    }
    let enable = || fs::write(&control, format!("+{controller}"));
    match enable() {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(unwritable(&control, &error)),
    }
    let own = top.join(WORKER);
    make_dir(&own)?;
    let (inside, join) = (top.join("cgroup.procs"), own.join("cgroup.procs"));
    for pid in members(&inside).filter(|pid| *pid == worker || process::is_executor(*pid)) {
        match fs::write(&join, pid.to_string()) {
            // One that ends meanwhile is in nobody's way.
            Err(error) if pid == worker => return Err(unwritable(&join, &error)),
            Ok(()) | Err(_) => {}
        }
    }
    enable().map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let others: Vec<String> = members(&inside).take(5).map(|pid| pid.to_string()).collect();
            let (top, others) = (top.display(), others.join(", "));
            format!("the control group {top} is shared with other processes ({others}); {ADVICE}")
        }
        _ => unwritable(&control, &error),
    })
}

fn members(procs: &Path) -> impl Iterator<Item = u32> + use<> {
    let text = read(procs).unwrap_or_default();
    let pids: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    pids.into_iter()
}

fn own(root: &Path) -> Result<Membership, String> {
    Membership::of(root, "self")
        .ok_or_else(|| format!("no control group is mounted that limits memory; {ADVICE}"))
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}; {ADVICE}", path.display())
}

fn make_dir(dir: &Path) -> Result<(), String> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(unwritable(dir, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A group; dropping it removes its directory, which the kernel allows once nobody is in it.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    version: Version,
}

impl Group {
    /// Makes a group with this limit in bytes.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(super) fn make(root: &Path, name: &str, bytes: u64) -> Result<Self, String> {
        let own = own(root)?;
        let dir = own.top().join(format!("{PREFIX}{name}"));
        make_dir(&dir)?;
        let group = Self { dir, version: own.version };
        let limit = group.dir.join(group.version.limit());
        fs::write(&limit, bytes.to_string()).map_err(|error| unwritable(&limit, &error))?;
        Ok(group)
    }

    /// The group that was made under this name for an executor that runs still (`pid`), or for one that has ended, which then
    /// is where ours would be made.
    pub(super) fn find(root: &Path, name: &str, pid: Option<u32>) -> Option<Self> {
        let of = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let found = Membership::of(root, &of)?;
        let wanted = format!("{PREFIX}{name}");
        let mut places =
            [found.dir.clone(), found.top().join(&wanted), found.mount.join(&wanted)].into_iter();
        let dir = places.find(|dir| dir.file_name().is_some_and(|last| *last == *wanted) && dir.is_dir());
        dir.map(|dir| Self { dir, version: found.version })
    }

    /// Where a process writes 0 to be in the group, with all that it starts.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn door(&self) -> Result<fs::File, String> {
        let door = self.dir.join("cgroup.procs");
        fs::File::options().write(true).open(&door).map_err(|error| unwritable(&door, &error))
    }

    /// The limit in bytes, if the kernel has ended a process of the group for it.
    pub(crate) fn exceeded(&self) -> Option<u64> {
        let count = ended_in(&self.dir.join(self.version.ended()))?;
        let limit = read(&self.dir.join(self.version.limit()))?;
        limit.trim().parse().ok().filter(|_| count > 0)
    }
}

/// How many processes the kernel has ended for want of memory, by a file that says it.
fn ended_in(file: &Path) -> Option<u64> {
    read(file)?.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The worker's own group, in which executors without a limit run, at one moment.
#[derive(Debug)]
pub(super) struct Around {
    /// The file that counts.
    counted: PathBuf,
    ended: u64,
}

impl Around {
    /// `None`: the kernel does not say what it ends there.
    pub(super) fn now(root: &Path) -> Option<Self> {
        let Membership { version, mount, dir } = Membership::of(root, "self")?;
        // As in `top`: inside a container the path may be the host's.
        let dir = if dir.is_dir() { dir } else { mount };
        // Executors with limits of their own may have groups below it, and end for those.
        let files = [version.ended_here(), version.ended()].map(|name| dir.join(name));
        files.into_iter().find_map(|counted| Some(Self { ended: ended_in(&counted)?, counted }))
    }

    /// Where the count stands, if the kernel has ended a process since.
    pub(super) fn has_ended_one(&self) -> Option<&Path> {
        ended_in(&self.counted).is_some_and(|now| now > self.ended).then_some(&*self.counted)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy for a moment after the last process has gone; what stays is empty and takes nothing.
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "a control group stays");
        }
    }
}
