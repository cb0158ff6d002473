//! Executors in their places, by the real kernel: through a real worker, which starts them as it starts every one.
//! Needs a control group that this user may write to; where there is none the test says so and leaves that part out.

mod scripted;

use std::fs;
use std::path::{Path, PathBuf};

use rpc::extension::CallPhase;
use scripted::{World, appears, held, pc1, start_ok};
use sealtasks::{FailureClass, TaskType};
use worker::confine::{Confinement, Confiner, CpuChoice};

/// More than the tests' executor takes when it waits, and less than when it is greedy (bytes).
const LIMIT: u64 = 64 << 20;

/// What `/proc` says of a process under this name.
fn says(pid: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
}

/// A process and those that it has started.
fn with_children(pid: &str) -> Vec<String> {
    let pid = pid.trim();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_ascii_whitespace().map(str::to_owned);
    std::iter::once(pid.to_owned()).chain(children).collect()
}

/// The first CPU that is ours.
fn one_cpu() -> usize {
    let ours = says("self", "Cpus_allowed_list");
    let end = ours.find([',', '-']).unwrap_or(ours.len());
    ours[..end].parse().unwrap()
}

fn confiner(cpus: Option<CpuChoice>, memory: Option<u64>) -> Confiner {
    Confiner::new([(TaskType::PreCommit1, Confinement { cpus, memory })].into())
}

/// A group for this process, as a service manager makes one, left again at the end.
struct OwnGroup {
    before: PathBuf,
    made: Option<PathBuf>,
}

impl OwnGroup {
    /// `None`: here no group can have a limit.
    fn new() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |line: &str| line.rsplit(':').next().unwrap().trim_start_matches('/').to_owned();
        if let Some(line) =
            groups.lines().find(|line| line.split(':').nth(1).is_some_and(|c| c.contains("memory")))
        {
            // Version 1 lets anybody make one who may write there.
            let mount = Path::new("/sys/fs/cgroup/memory");
            let own = Some(mount.join(path(line))).filter(|own| own.is_dir()).unwrap_or_else(|| mount.into());
            let probe = own.join(format!("probe-{}", std::process::id()));
            fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).ok()?;
            return Some(Self { before: own, made: None });
        }
        let mount = Path::new("/sys/fs/cgroup");
        let before = mount.join(path(groups.lines().find(|line| line.starts_with("0::"))?));
        let made = mount.join(format!("sealyard-test-{}", std::process::id()));
        fs::create_dir(&made).ok()?;
        let own = Self { before, made: Some(made.clone()) };
        let given = fs::read_to_string(made.join("cgroup.controllers")).ok()?;
        (given.contains("memory") && fs::write(made.join("cgroup.procs"), "0").is_ok()).then_some(own)
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let Some(made) = &self.made else { return };
        let _ = fs::write(self.before.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(made.join("sealyard-worker"));
        let _ = fs::remove_dir(made);
    }
}

#[tokio::test]
async fn an_executor_and_what_it_starts_keep_to_their_cpus() {
    let mut world = World::new();
    let (cpu, before) = (one_cpu(), says("self", "Cpus_allowed_list"));
    world.confiner = confiner(Some(CpuChoice::List([cpu].into())), None);
    world.mode("hang");
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    appears(&world.evidence("hangs")).await;
    held(&worker, call, Some(CallPhase::Running)).await;
    for pid in with_children(&world.told("pid")) {
        assert_eq!(says(&pid, "Cpus_allowed_list"), cpu.to_string(), "{pid}");
    }
    assert_eq!(says("self", "Cpus_allowed_list"), before, "the worker runs where it ran");
    // The script told of itself before it did anything else.
    assert_eq!(world.told("cpus"), format!("Cpus_allowed_list:\t{cpu}\n"), "from its first moment on");
    worker.close().await;
}

#[tokio::test]
async fn an_executor_is_under_its_limit_from_the_start_and_is_ended_by_it_in_words_that_name_it() {
    let Some(_group) = OwnGroup::new() else {
        #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
        {
            eprintln!("LEFT OUT: no control group with a limit on memory can be made here");
        }
        return;
    };
    let mut world = World::new();
    world.confiner = confiner(None, Some(LIMIT));
    world.mode("hang");
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    appears(&world.evidence("hangs")).await;
    held(&worker, call, Some(CallPhase::Running)).await;
    let name = format!("/sealyard-{}", call.id);
    for pid in with_children(&world.told("pid")) {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let is_there = |line: &&str| line.contains("memory:/") || line.starts_with("0::/");
        assert!(groups.lines().filter(is_there).any(|line| line.ends_with(&name)), "{pid}: {groups}");
    }
    assert!(world.told("groups").contains(&name), "from its first moment on: {}", world.told("groups"));
    worker.close().await;
    drop(worker);

    world.mode("greedy");
    let worker = world.start().await;
    let call = start_ok(&worker, pc1(None)).await;
    let returned = world.returned(call).await;
    let failure = returned.result.unwrap_err().message;
    assert!(failure.contains(&format!("more memory than its limit of {LIMIT} bytes")), "{failure}");
    assert!(failure.contains("[executor.pc1]"), "{failure}");
    assert_eq!(returned.account.unwrap().class, Some(FailureClass::Environment));
    worker.close().await;
}
