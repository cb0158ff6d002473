//! Which CPUs belong together, as `/sys` has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
        let caches = fs::read_dir(entry.path().join("cache")).ok()?.flatten();
        let l3 = caches
            .map(|cache| cache.path())
            .find(|cache| read(&cache.join("level")).is_some_and(|level| level.trim() == "3"))?;
        let shared = parse_list(read(&l3.join("shared_cpu_list"))?.trim())?;
        Some(shared.intersection(allowed).copied().collect::<BTreeSet<usize>>())
    };
    entries.flatten().filter_map(group).filter(|group| !group.is_empty()).collect()
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
