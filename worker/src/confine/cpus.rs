//! Which CPUs belong together, as `/sys` has it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::resources::read;

/// No machine has more CPUs; the bound keeps a mistyped list short.
const CPUS_MAX: usize = 8192;

/// Groups of `allowed` CPUs that share an L3 cache, each once. None where the kernel does not tell.
pub(super) fn l3_groups(root: &Path, allowed: &BTreeSet<usize>) -> BTreeSet<BTreeSet<usize>> {
    let Ok(entries) = fs::read_dir(root.join("sys/devices/system/cpu")) else { return BTreeSet::new() };
    let group = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse::<usize>().ok()?;
        if !allowed.contains(&number) {
            return None;
        }
        let shared = parse_list(read(&l3_list(root, number)?)?.trim())?;
        Some(shared.intersection(allowed).copied().collect::<BTreeSet<usize>>())
    };
    entries.flatten().filter_map(group).filter(|group| !group.is_empty()).collect()
}

/// The file that tells which CPUs share their L3 cache with this one.
fn l3_list(root: &Path, cpu: usize) -> Option<PathBuf> {
    let caches = fs::read_dir(root.join(format!("sys/devices/system/cpu/cpu{cpu}/cache"))).ok()?.flatten();
    let l3 = caches
        .map(|cache| cache.path())
        .find(|cache| read(&cache.join("level")).is_some_and(|level| level.trim() == "3"))?;
    Some(l3.join("shared_cpu_list"))
}

/// Holds a group of [`l3_groups`] against every other worker of this machine, for as long as the file is open in any process.
/// `None`: another holds it. What is locked is the kernel's own file about the group: everybody finds it, and nothing is left
/// behind.
pub(super) fn hold_l3(root: &Path, group: &BTreeSet<usize>) -> io::Result<Option<File>> {
    let list = |cpu: usize| l3_list(root, cpu).ok_or(io::ErrorKind::NotFound);
    let one = group.first().copied().ok_or(io::ErrorKind::NotFound)?;
    // Workers that may use different CPUs of it lock the same file.
    let all = parse_list(fs::read_to_string(list(one)?)?.trim()).unwrap_or_default();
    let file = File::open(list(all.first().copied().unwrap_or(one))?)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The CPUs of a NUMA node.
pub(super) fn of_node(root: &Path, node: u32) -> Option<BTreeSet<usize>> {
    let list = read(&root.join(format!("sys/devices/system/node/node{node}/cpulist")))?;
    parse_list(list.trim()).filter(|cpus| !cpus.is_empty())
}

/// A list such as `0-7,64-71`; `None` when it is none.
pub(super) fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}
