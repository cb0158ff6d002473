use std::fs;

use super::*;
use crate::resources::tests::tree;

fn confiner(cpus: Option<CpuChoice>, memory: Option<u64>) -> Confiner {
    Confiner::new([(TaskType::PreCommit1, Confinement { cpus, memory })].into())
}

#[test]
fn each_executor_gets_a_whole_l3_group_and_gives_it_back() {
    let ours: Vec<usize> = allowed().into_iter().collect();
    // As many groups as this machine has CPUs for us, each with one of them and one that is not ours.
    let files: Vec<(String, String)> = ours
        .iter()
        .flat_map(|cpu| {
            let cache = format!("sys/devices/system/cpu/cpu{cpu}/cache");
            let list = format!("{cpu},{}\n", cpu + 4096);
            [
                (format!("{cache}/index2/level"), "2\n".to_owned()),
                (format!("{cache}/index3/level"), "3\n".to_owned()),
                (format!("{cache}/index3/shared_cpu_list"), list),
            ]
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let root = tree(&files);
    let confiner = confiner(Some(CpuChoice::L3), None);
    let place = || confiner.place_in(root.path(), TaskType::PreCommit1, "x");
    let places: Vec<Place> = ours.iter().map(|_| place()).collect();
    let taken: BTreeSet<usize> = places.iter().flat_map(|place| place.cpus.clone()).collect();
    assert_eq!(taken, ours.iter().copied().collect(), "every group once");
    let freed = places.into_iter().next_back().unwrap();
    let cpus = freed.cpus.clone();
    // All the others were dropped with the list: this one alone is taken.
    let next = place();
    assert!(ours.len() == 1 || next.cpus != cpus, "{next:?}");
    assert!(
        confiner.place_in(root.path(), TaskType::PreCommit2, "x").cpus.is_empty(),
        "another task runs anywhere"
    );
}

#[test]
fn a_node_or_a_list_is_taken_as_it_is_and_what_is_not_there_is_done_without() {
    let root = tree(&[("sys/devices/system/node/node1/cpulist", "2-3,6\n")]);
    let cpus = |choice: &str| {
        let confiner = confiner(Some(choice.parse().unwrap()), None);
        confiner.place_in(root.path(), TaskType::PreCommit1, "x").cpus.clone()
    };
    assert_eq!(cpus("node1"), [2, 3, 6].into());
    assert_eq!(cpus("0-1,9"), [0, 1, 9].into());
    assert!(cpus("node7").is_empty() && cpus("l3").is_empty(), "it runs anywhere");
    for bad in ["", "l4", "node", "3-1", "0-", "1,,2", "0-99999"] {
        assert!(bad.parse::<CpuChoice>().is_err(), "{bad}");
    }
}

#[test]
fn a_limit_on_memory_is_a_group_below_ours_in_either_version() {
    for (own, at, file, peak) in [
        ("0::/worker\n", "sys/fs/cgroup/worker", "memory.max", "memory.peak"),
        (
            "4:cpu,memory:/worker\n0::/\n",
            "sys/fs/cgroup/memory/worker",
            "memory.limit_in_bytes",
            "memory.max_usage_in_bytes",
        ),
    ] {
        let root = tree(&[
            ("proc/self/cgroup", own),
            (&format!("{at}/cgroup.subtree_control"), "cpu memory\n"),
            (&format!("{at}/cgroup.procs"), ""),
        ]);
        let place = confiner(None, Some(5 << 30)).place_in(root.path(), TaskType::PreCommit1, "a-call");
        let dir = root.path().join(at).join("sealyard-a-call");
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), (5_u64 << 30).to_string());
        let group = place.group.as_ref().unwrap();
        group.take_in(77).unwrap();
        assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap(), "77");
        fs::write(dir.join(peak), "123\n").unwrap();
        assert_eq!(group.peak(), Some(123));
    }
}

#[test]
fn without_a_group_that_can_be_written_a_task_runs_unlimited_and_that_is_said_once() {
    // A regular file stands where the group's directory would be made.
    let root = tree(&[
        ("proc/self/cgroup", "0::/worker\n"),
        ("sys/fs/cgroup/worker/cgroup.subtree_control", "memory\n"),
        ("sys/fs/cgroup/worker/sealyard-x", "in the way"),
    ]);
    let confiner = confiner(None, Some(1 << 30));
    for _ in 0..2 {
        assert!(confiner.place_in(root.path(), TaskType::PreCommit1, "x").group.is_none());
    }
    assert_eq!(confiner.shared().said.len(), 1, "{:?}", confiner.shared().said);
    let said = confiner.shared().said.first().cloned().unwrap();
    assert!(said.contains("no limit on memory") && said.contains("sealyard-x"), "{said}");
}

#[test]
fn a_process_is_kept_to_its_cpus() {
    let one: BTreeSet<usize> = allowed().into_iter().take(1).collect();
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    keep_to(child.id(), &one).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(cpus::parse_list(list.trim()), Some(one));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn what_an_executor_had_is_found_again_after_its_worker_died() {
    for (line, at) in [
        ("0::/worker", "sys/fs/cgroup/worker"),
        ("4:cpu,memory:/worker", "sys/fs/cgroup/memory/worker"),
        // The path is the host's.
        ("4:cpu,memory:/docker/abc", "sys/fs/cgroup/memory"),
    ] {
        let root = tree(&[
            ("proc/self/cgroup", &format!("{line}\n")),
            ("proc/77/cgroup", &format!("{line}/sealyard-a-call\n")),
            ("proc/78/cgroup", &format!("{line}/sealyard-another\n")),
        ]);
        let dir = root.path().join(at).join("sealyard-a-call");
        let confiner = confiner(None, None);
        let found = |pid| confiner.place_again_in(root.path(), TaskType::PreCommit1, "a-call", pid);
        assert!(found(Some(77)).group.is_none(), "it was never made");
        for pid in [Some(77), None] {
            fs::create_dir_all(&dir).unwrap();
            let place = found(pid);
            assert!(place.group.is_some(), "{line} {pid:?}");
            drop(place);
            assert!(!dir.exists(), "it is removed with the executor's end");
        }
        assert!(found(Some(79)).group.is_none(), "no such process");
    }
}
