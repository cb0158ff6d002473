use std::fs;

use super::*;
use crate::process;
use crate::resources::tests::tree;

fn confiner(cpus: Option<CpuChoice>, memory: Option<u64>) -> Confiner {
    Confiner::new([(TaskType::PreCommit1, Confinement { cpus, memory })].into())
}

/// As many groups as this machine has CPUs for us, each with one of them and one that is not ours; and those CPUs.
fn an_l3_for_each_cpu() -> (tempfile::TempDir, Vec<usize>) {
    let ours: Vec<usize> = allowed().into_iter().collect();
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
    (tree(&files), ours)
}

#[test]
fn each_executor_gets_a_whole_l3_group_and_gives_it_back() {
    let (root, ours) = an_l3_for_each_cpu();
    let confiner = confiner(Some(CpuChoice::L3), None);
    let place = || confiner.place_in(root.path(), TaskType::PreCommit1, "x").unwrap();
    let places: Vec<Place> = ours.iter().map(|_| place()).collect();
    let taken: BTreeSet<usize> = places.iter().flat_map(|place| place.cpus.clone()).collect();
    assert_eq!(taken, ours.iter().copied().collect(), "every group once");
    let freed = places.into_iter().next_back().unwrap();
    let cpus = freed.cpus.clone();
    // All the others were dropped with the list: this one alone is taken.
    let next = place();
    assert!(ours.len() == 1 || next.cpus != cpus, "{next:?}");
    assert!(
        confiner.place_in(root.path(), TaskType::PreCommit2, "x").unwrap().cpus.is_empty(),
        "another task runs anywhere"
    );
}

#[tokio::test]
async fn workers_of_one_machine_use_different_l3_groups_as_long_as_executors_live() {
    let (root, ours) = an_l3_for_each_cpu();
    let place = |worker: &Confiner| worker.place_in(root.path(), TaskType::PreCommit1, "x").unwrap();
    let workers = [(); 2].map(|()| confiner(Some(CpuChoice::L3), None));
    let first = place(&workers[0]);
    let taken = first.cpus.clone();
    let mut command = Command::new("cat");
    command.stdin(std::process::Stdio::piped());
    first.keep(&mut command).unwrap();
    let mut executor = command.spawn().unwrap();
    drop(command);
    // Its worker dies.
    drop(first);
    for _ in 1..ours.len() {
        let other = place(&workers[1]);
        assert_ne!(other.cpus, taken, "one that nobody uses");
    }
    let others: Vec<Place> = ours.iter().map(|_| place(&workers[1])).collect();
    let last = others.last().unwrap();
    assert!(last.lock.is_none() && !last.cpus.is_empty(), "where all are used it shares: {last:?}");
    drop(others);
    executor.kill().await.unwrap();
    // Whoever starts a process beside this holds what is open here until its program begins.
    let freed = async {
        while place(&workers[1]).cpus != taken {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), freed).await.expect("the group is free");
}

#[test]
fn a_node_or_a_list_is_taken_as_it_is_and_what_is_not_there_is_done_without() {
    let root = tree(&[("sys/devices/system/node/node1/cpulist", "2-3,6\n")]);
    let cpus = |choice: &str| {
        let confiner = confiner(Some(choice.parse().unwrap()), None);
        confiner.place_in(root.path(), TaskType::PreCommit1, "x").unwrap().cpus.clone()
    };
    assert_eq!(cpus("node1"), [2, 3, 6].into());
    assert_eq!(cpus("0-1,9"), [0, 1, 9].into());
    assert!(cpus("node7").is_empty() && cpus("l3").is_empty(), "it runs anywhere");
    for bad in ["", "l4", "node", "3-1", "0-", "1,,2", "0-99999"] {
        assert!(bad.parse::<CpuChoice>().is_err(), "{bad}");
    }
}

#[test]
fn a_limit_on_memory_is_a_group_where_the_kernel_allows_it_in_either_version() {
    let two = ("memory.max", "memory.events");
    for (own, at, (limit, ended)) in [
        ("0::/worker\n", "sys/fs/cgroup/worker", two),
        // It has moved out of the way.
        ("0::/worker/sealyard-worker\n", "sys/fs/cgroup/worker", two),
        (
            "4:cpu,memory:/worker\n0::/\n",
            "sys/fs/cgroup/memory/worker",
            ("memory.limit_in_bytes", "memory.oom_control"),
        ),
    ] {
        let root = tree(&[
            ("proc/self/cgroup", own),
            (&format!("{at}/cgroup.subtree_control"), "cpu memory\n"),
            (&format!("{at}/cgroup.procs"), ""),
        ]);
        memory::prepare(root.path(), 5 << 30).unwrap();
        let confiner = confiner(None, Some(5 << 30));
        let place = confiner.place_in(root.path(), TaskType::PreCommit1, "a-call").unwrap();
        let dir = root.path().join(at).join("sealyard-a-call");
        assert_eq!(fs::read_to_string(dir.join(limit)).unwrap(), (5_u64 << 30).to_string());
        let group = place.group.as_ref().unwrap();
        assert_eq!(group.exceeded(), None);
        for (kills, told) in [(0, None), (2, Some(5 << 30))] {
            fs::write(dir.join(ended), told_by_kernel(ended, kills)).unwrap();
            assert_eq!(group.exceeded(), told);
        }
    }
}

/// What the kernel has in the file that counts whom it has ended, in either version.
fn told_by_kernel(file: &str, kills: u64) -> String {
    match file {
        "memory.events" | "memory.events.local" => {
            format!("low 0\nhigh 0\nmax 12\noom 3\noom_kill {kills}\noom_group_kill 1\n")
        }
        _ => format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"),
    }
}

#[test]
fn an_executor_without_a_limit_of_its_own_is_told_to_have_met_its_worker_s() {
    for (own, counts) in [
        ("0::/worker\n", "sys/fs/cgroup/worker/memory.events"),
        // The path is the host's, and what has a limit of its own runs below.
        ("0::/docker/abc\n", "sys/fs/cgroup/memory.events.local"),
        ("4:cpu,memory:/worker\n0::/\n", "sys/fs/cgroup/memory/worker/memory.oom_control"),
    ] {
        let file = counts.rsplit('/').next().unwrap();
        let mut files = vec![("proc/self/cgroup", own.to_owned()), (counts, told_by_kernel(file, 4))];
        files.extend(counts.strip_suffix(".local").map(|all| (all, told_by_kernel(file, 9))));
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let root = tree(&files);
        let place = confiner(None, None).place_in(root.path(), TaskType::PreCommit1, "a-call").unwrap();
        let failure = || ExecutorFailure { class: FailureClass::Compute, message: "it ended".to_owned() };
        assert_eq!(place.explain("pc1", failure()).message, "it ended", "none since it has its place");
        let below = root.path().join(counts.strip_suffix(".local").unwrap_or("elsewhere"));
        fs::write(below, told_by_kernel(file, 10)).unwrap();
        assert_eq!(
            place.explain("pc1", failure()).message,
            "it ended",
            "one below that has a limit of its own"
        );
        fs::write(root.path().join(counts), told_by_kernel(file, 5)).unwrap();
        let told = place.explain("pc1", failure());
        assert_eq!(told.class, FailureClass::Environment);
        let bad = ExecutorFailure { class: FailureClass::BadData, message: "bad".to_owned() };
        assert_eq!(place.explain("pc1", bad).message, "bad", "it says itself what was wrong");
        assert!(told.message.contains(counts) && told.message.ends_with(": it ended"), "{told:?}");
    }
}

#[test]
fn without_a_group_that_can_be_written_nothing_runs_and_what_to_do_is_said() {
    let none = [("proc/self/cgroup", "3:cpu:/worker\n")];
    let not_given = [
        ("proc/self/cgroup", "0::/worker\n"),
        ("sys/fs/cgroup/worker/cgroup.subtree_control", "\n"),
        ("sys/fs/cgroup/worker/cgroup.controllers", "cpu pids\n"),
    ];
    // A regular file stands where the group's directory would be made.
    let probe = format!("sys/fs/cgroup/worker/sealyard-probe-{}", std::process::id());
    let in_the_way = [
        ("proc/self/cgroup", "0::/worker\n"),
        ("sys/fs/cgroup/worker/cgroup.subtree_control", "memory\n"),
        (probe.as_str(), "in the way"),
        ("sys/fs/cgroup/worker/sealyard-x", "in the way"),
    ];
    for (files, words) in [
        (&none[..], "no control group is mounted that limits memory"),
        (&not_given[..], "sys/fs/cgroup/worker was not given control of memory"),
        (&in_the_way[..], "cannot be written"),
    ] {
        let root = tree(files);
        let why = memory::prepare(root.path(), 1 << 30).unwrap_err();
        assert!(why.contains(words) && why.contains("Delegate=memory"), "{why}");
        let placed = confiner(None, Some(1 << 30)).place_in(root.path(), TaskType::PreCommit1, "x");
        assert!(files.len() == 3 || placed.is_err(), "{placed:?}");
    }
}

/// The kernel's rule for groups of version 2, tried with whichever controller it has for them here.
#[test]
fn a_group_of_version_2_hands_control_down_once_its_processes_have_moved() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let mount = PathBuf::from(mount.unwrap_or("/nowhere"));
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let controller = ["memory", "hugetlb"].into_iter().find(|name| controllers.contains(name));
    let top = mount.join(format!("sealyard-test-{}", std::process::id()));
    let made = controller.filter(|name| {
        fs::write(mount.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
            && fs::create_dir(&top).is_ok()
    });
    let Some(controller) = made else {
        #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
        {
            eprintln!("LEFT OUT: no control group of version 2 can be made here");
        }
        return;
    };
    let shell = |is_executor: bool| {
        let mut command = std::process::Command::new("cat");
        command.stdin(std::process::Stdio::piped());
        if is_executor {
            command.env(process::CALL_VARIABLE, "of an earlier life");
        }
        let child = command.spawn().unwrap();
        // A program that has just begun has no environment yet.
        let begun = std::time::Instant::now();
        while fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it has no environment");
            std::thread::yield_now();
        }
        fs::write(top.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    };
    let where_is = |pid: u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        groups.lines().find_map(|line| line.strip_prefix("0::")).map(|path| below(&mount, path)).unwrap()
    };
    let (mut worker, mut executor, mut stranger) = (shell(false), shell(true), shell(false));
    let refused = memory::hand_down(&top, controller, worker.id());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let done = memory::hand_down(&top, controller, worker.id());
    let (ours, theirs) = (where_is(worker.id()), where_is(executor.id()));
    let beside = top.join("sealyard-a-call");
    let given = fs::create_dir(&beside).and_then(|()| fs::read_to_string(beside.join("cgroup.controllers")));
    for child in [&mut worker, &mut executor] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for dir in [&beside, &top.join("sealyard-worker"), &top] {
        let _ = fs::remove_dir(dir);
    }
    let refused = refused.unwrap_err();
    assert!(refused.contains(&format!("shared with other processes ({})", stranger.id())), "{refused}");
    done.unwrap();
    assert_eq!((ours, theirs), (top.join("sealyard-worker"), top.join("sealyard-worker")));
    assert!(given.unwrap().contains(controller));
    assert!(!top.exists(), "nothing of it stays");
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
