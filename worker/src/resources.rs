//! What this machine offers: memory and swap within the control group's limits, CPUs, GPUs, and the resource table.
//!
//! Read from `/proc` and `/sys` only; no driver library is loaded, so that a worker without GPU tasks never touches one.

use std::fs;
use std::path::{Path, PathBuf};

use rpc::api::WorkerResources;
use sealtasks::{ResourceEnvError, ResourceTable};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::gpus;

/// Longest file read from `/proc` and `/sys`, in bytes; a longer one is taken as unreadable.
const FILE_MAX: u64 = 1 << 20;

/// Whether swap counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// It counts for the peak of a task's memory.
    Counted,
    /// `--no-swap`: as if there were none.
    Ignored,
}

/// What this machine has now. The table comes from the environment of this process.
///
/// # Errors
/// A resource variable (`PC1_32G_MAX_MEMORY` and its kin) is no number of its kind.
pub fn detect(swap: Swap) -> Result<WorkerResources, ResourceEnvError> {
    let table = ResourceTable::from_environment(|name| std::env::var(name).ok())?;
    let memory = memory(swap);
    // `--enable-gpu-proving=false` sets this variable, as in Lotus.
    let gpus = match std::env::var_os("BELLMAN_NO_GPU") {
        Some(_) => Vec::new(),
        None => gpus::names(Path::new("/"), std::env::var(gpus::VISIBLE).ok().as_deref()),
    };
    Ok(WorkerResources {
        mem_physical: memory.physical,
        mem_used: memory.used,
        mem_swap: memory.swap,
        mem_swap_used: memory.swap_used,
        // Affinity and the control group's quota are counted in.
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
        gpus,
        table: Some(table),
    })
}

/// Memory in bytes, within the control group's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM.
    pub physical: u64,
    /// RAM in use, by whomever.
    pub used: u64,
    /// Swap.
    pub swap: u64,
    /// Swap in use.
    pub swap_used: u64,
}

/// Memory as it is now.
pub fn memory(swap: Swap) -> Memory {
    let limited = within_groups(host(), Path::new("/")).0;
    match swap {
        Swap::Counted => limited,
        Swap::Ignored => Memory { swap: 0, swap_used: 0, ..limited },
    }
}

/// The control group's directory whose limit on memory counts for this process; `None`: it may use all that the host has.
pub(crate) fn limiting_group(root: &Path) -> Option<PathBuf> {
    within_groups(host(), root).1
}

fn host() -> Memory {
    let everything = MemoryRefreshKind::everything();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(everything));
    Memory {
        physical: system.total_memory(),
        used: system.total_memory().saturating_sub(system.available_memory()),
        swap: system.total_swap(),
        swap_used: system.used_swap(),
    }
}

/// The memory that a process has for itself, in bytes; 0 when it is gone. Files that it has mapped do not count: they are
/// page cache, which does not count as use either. Shared memory counts, as it does there.
pub(crate) fn resident(pid: u32) -> u64 {
    read(&PathBuf::from(format!("/proc/{pid}/status"))).map_or(0, |status| resident_in(&status))
}

fn resident_in(status: &str) -> u64 {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let parts = ["RssAnon:", "RssShmem:"].map(|name| kib(name).unwrap_or(0));
    parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.saturating_mul(1 << 10)))
}

/// Lowers `host` to the limits of this process's control groups, version 1 and 2. A group's use replaces the host's
/// only where its limit counts; page cache is not use. Also gives the group whose limit on RAM counts.
fn within_groups(host: Memory, root: &Path) -> (Memory, Option<PathBuf>) {
    let (mut memory, mut limiting) = (host, None);
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            limiting = version_2(&mut memory, &root.join("sys/fs/cgroup"), path).or(limiting);
        } else if controllers.split(',').any(|controller| controller == "memory") {
            limiting = version_1(&mut memory, &root.join("sys/fs/cgroup/memory"), path).or(limiting);
        }
    }
    (memory, limiting)
}

fn version_1(memory: &mut Memory, mount: &Path, path: &str) -> Option<PathBuf> {
    // Inside a container the path is the host's and the group's files stand at the mount's root.
    let own = mount.join(path.trim_start_matches('/'));
    let group = if own.join("memory.limit_in_bytes").exists() { own } else { mount.to_owned() };
    let limit = number(&group.join("memory.limit_in_bytes")).filter(|limit| *limit > 0)?;
    if limit >= memory.physical {
        return None;
    }
    let stat = read(&group.join("memory.stat")).unwrap_or_default();
    let cache = field(&stat, "inactive_file") + field(&stat, "active_file");
    let usage = number(&group.join("memory.usage_in_bytes")).unwrap_or(0);
    (memory.physical, memory.used) = (limit, usage.saturating_sub(cache));
    Some(group)
}

fn version_2(memory: &mut Memory, mount: &Path, path: &str) -> Option<PathBuf> {
    let mut limiting = None;
    let own = mount.join(path.trim_start_matches('/'));
    // From our own group up to the root, whose files exist only inside a container.
    for group in own.ancestors().take_while(|group| group.starts_with(mount)) {
        if let Some(limit) = number(&group.join("memory.max")).filter(|limit| *limit < memory.physical) {
            let stat = read(&group.join("memory.stat")).unwrap_or_default();
            let usage = number(&group.join("memory.current")).unwrap_or(0);
            (memory.physical, memory.used) = (limit, usage.saturating_sub(field(&stat, "file")));
            limiting = Some(group.to_owned());
        }
        if let Some(limit) = number(&group.join("memory.swap.max")).filter(|limit| *limit < memory.swap) {
            memory.swap = limit;
            memory.swap_used = number(&group.join("memory.swap.current")).unwrap_or(0);
        }
    }
    limiting
}

/// The number in a file; `None` for `max` and for what cannot be read.
fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The number behind `name` in a file of `name number` lines; 0 without one.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// The text of a file of the kernel's; `None` where it cannot be read.
pub(crate) fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HOST: Memory = Memory { physical: 1 << 40, used: 1 << 30, swap: 1 << 34, swap_used: 5 };

    /// A root directory with these files, as the kernel's are read from.
    pub(crate) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_above_us_counts() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.current", "5000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\nfile 2000\nfile_mapped 7\n"),
            ("sys/fs/cgroup/a/b/memory.swap.max", "0\n"),
        ]);
        let (memory, limiting) = within_groups(HOST, root.path());
        assert_eq!(memory, Memory { physical: 1_000_000, used: 3000, swap: 0, swap_used: 0 });
        assert_eq!(limiting, Some(root.path().join("sys/fs/cgroup/a")));
    }

    #[test]
    fn version_1_limits_count_too() {
        let root = tree(&[
            ("proc/self/cgroup", "3:cpu,memory:/docker/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2048\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 24\nactive_file 1000\n"),
        ]);
        let (memory, limiting) = within_groups(HOST, root.path());
        assert_eq!(memory, Memory { physical: 4096, used: 1024, ..HOST });
        assert_eq!(limiting, Some(root.path().join("sys/fs/cgroup/memory")));
    }

    #[test]
    fn without_limits_the_host_counts() {
        let root = tree(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")]);
        assert_eq!(within_groups(HOST, root.path()), (HOST, None));
    }

    #[test]
    fn what_a_process_has_mapped_is_not_its_memory() {
        let status = "VmRSS:\t  9000 kB\nRssAnon:\t  100 kB\nRssFile:\t  8897 kB\nRssShmem:\t    3 kB\n";
        assert_eq!((resident_in(status), resident_in("State:\tZ (zombie)\n")), (103 << 10, 0));
    }

    #[test]
    fn this_machine_has_memory_and_cpus() {
        let resources = detect(Swap::Ignored).unwrap();
        assert!(resources.mem_physical > 0 && resources.cpus > 0);
        assert_eq!((resources.mem_swap, resources.mem_swap_used), (0, 0));
        assert!(resident(std::process::id()) > 0);
    }
}
