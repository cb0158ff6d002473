//! A control group for one executor, with a limit on its memory: below our own group, of whichever version is mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::below;
use crate::resources::read;

/// What our groups' names begin with.
const PREFIX: &str = "sealyard-";

/// A group; dropping it removes its directory, which the kernel allows once nobody is in it.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    peak: &'static str,
}

impl Group {
    /// Makes a group with this limit in bytes.
    ///
    /// # Errors
    /// Why not, in words: no control group of ours can be written, or has control of memory.
    pub(super) fn make(root: &Path, name: &str, bytes: u64) -> Result<Self, String> {
        let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
        let mut why = "no control group is mounted".to_owned();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let made = match controllers {
                "" => version_2(&root.join("sys/fs/cgroup"), path, name, bytes),
                some if some.split(',').any(|controller| controller == "memory") => {
                    version_1(&root.join("sys/fs/cgroup/memory"), path, name, bytes)
                }
                _ => continue,
            };
            match made {
                Ok(group) => return Ok(group),
                Err(error) => why = error,
            }
        }
        Err(format!("no limit on memory: {why}"))
    }

    /// The group that was made under this name for an executor that runs still (`pid`), or for one that has ended, which then
    /// is below our own.
    pub(super) fn find(root: &Path, name: &str, pid: Option<u32>) -> Option<Self> {
        let of = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let groups = read(&root.join("proc").join(of).join("cgroup"))?;
        let wanted = format!("{PREFIX}{name}");
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (mount, peak) = match controllers {
                "" => ("sys/fs/cgroup", "memory.peak"),
                some if some.split(',').any(|controller| controller == "memory") => {
                    ("sys/fs/cgroup/memory", "memory.max_usage_in_bytes")
                }
                _ => return None,
            };
            let mount = root.join(mount);
            let own = below(&mount, path);
            // Inside a container the path is the host's and the group's files stand at the mount's root.
            let mut places = [own.clone(), own.join(&wanted), mount.join(&wanted)].into_iter();
            let dir = places.find(|dir| dir.file_name().is_some_and(|last| *last == *wanted) && dir.is_dir());
            dir.map(|dir| Self { dir, peak })
        })
    }

    /// Puts a process in; what it starts is in, too.
    pub(crate) fn take_in(&self, pid: u32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// The most that all of it had at a time, in bytes, page cache included; `None` where the kernel does not tell.
    #[cfg(test)]
    pub(crate) fn peak(&self) -> Option<u64> {
        read(&self.dir.join(self.peak))?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy for a moment after the last process has gone; what stays is empty and takes nothing.
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), peak = self.peak, %error, "a control group stays");
        }
    }
}

fn version_2(mount: &Path, path: &str, name: &str, bytes: u64) -> Result<Group, String> {
    let own = below(mount, path);
    let control = own.join("cgroup.subtree_control");
    let handed_down = read(&control).unwrap_or_default();
    if !handed_down.split_ascii_whitespace().any(|controller| controller == "memory") {
        // The kernel allows it only to a group without processes of its own, and to the root.
        fs::write(&control, "+memory").map_err(|error| {
            format!("{} does not hand control of memory down ({error}); start the worker with `Delegate=memory` and in \
                 a group of its own", own.display())
        })?;
    }
    make(&own, name, "memory.max", bytes, "memory.peak")
}

fn version_1(mount: &Path, path: &str, name: &str, bytes: u64) -> Result<Group, String> {
    // Inside a container the path is the host's and the group's files stand at the mount's root.
    let own = below(mount, path);
    let own = if own.is_dir() { own } else { mount.to_owned() };
    make(&own, name, "memory.limit_in_bytes", bytes, "memory.max_usage_in_bytes")
}

fn make(own: &Path, name: &str, limit: &str, bytes: u64, peak: &'static str) -> Result<Group, String> {
    let dir = own.join(format!("{PREFIX}{name}"));
    let failed = |path: &Path, error: io::Error| format!("{} cannot be written: {error}", path.display());
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&dir, error)),
        Ok(()) | Err(_) => {}
    }
    let group = Group { dir, peak };
    let file = group.dir.join(limit);
    fs::write(&file, bytes.to_string()).map_err(|error| failed(&file, error))?;
    Ok(group)
}
