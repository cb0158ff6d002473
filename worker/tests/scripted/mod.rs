//! A manager that follows a script: a real index, everything it is told kept for the tests, and answers that a test
//! can spoil. And a world around it: a worker repo in a temporary directory with a small real executor program.
#![allow(dead_code, reason = "each test target uses a part of it")]

pub mod manager;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rpc::api::{Job, Returned};
use rpc::extension::CallPhase;
use rpc::{PieceData, WorkerApi as _};
use sealtasks::{
    AttemptId, CallId, ExecutorReport, FileType, Pc1Output, PreCommit1Input, RegisteredSealProof, SectorId,
    SectorRef, SectorSize, TaskCaps, TaskId, TaskInput, TaskOutput, TaskType, Ticket,
};
use tokio::sync::watch;
use worker::confine::Confiner;
use worker::resources::{Swap, detect};
use worker::{
    BUILT, ExecutorOptions, FirstPath, Periods, ProofParams, Repo, RepoError, Worker, WorkerHandle,
    WorkerOptions,
};

pub use manager::ScriptedManager;

pub const SECTOR: SectorRef =
    SectorRef { id: SectorId::new(1000, 7), proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2) };

/// Nothing here takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `seen` holds and returns what it made of the value.
pub async fn until<T, R>(watched: &watch::Sender<T>, mut seen: impl FnMut(&T) -> Option<R>) -> R {
    let mut watched = watched.subscribe();
    let waiting = async {
        loop {
            if let Some(found) = seen(&watched.borrow_and_update()) {
                return found;
            }
            watched.changed().await.expect("the sender outlives the test");
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("what was waited for never happened")
}

/// The executor of the tests: a shell script that speaks the executor's files and does as `$MODE` says.
const EXECUTOR: &str = r#"#!/bin/sh
# exec <task> --input <request> --output <report>
grep Cpus_allowed_list /proc/$$/status > "$EVIDENCE/cpus"
cat /proc/$$/cgroup > "$EVIDENCE/groups"
echo "$2" >> "$EVIDENCE/runs"
echo $$ > "$EVIDENCE/pid"
pwd > "$EVIDENCE/cwd"
env > "$EVIDENCE/env"
cp "$4" "$EVIDENCE/request"
unsealed=$(sed -n 's/.*"unsealed":"\(\/[^"]*\)".*/\1/p' "$4")
sealed=$(sed -n 's/.*"unsealed":"\(\/[^"]*\)".*/\1/p' "$4")
sealed=$(sed -n 's/.*"sealed":"\(\/[^"]*\)".*/\1/p' "$4")
cache=$(sed -n 's/.*"cache":"\(\/[^"]*\)".*/\1/p' "$4")
if [ "$2" = pc1 ]; then
    mkdir -p "$cache" && echo layer > "$cache/sc-02-data-layer-1.dat"
    head -c 2048 /dev/zero > "$sealed"
fi
if [ "$2" = uns ]; then head -c 2052 /dev/zero > "$unsealed"; fi
if [ "$2" = dc ]; then cat <&3 > "$EVIDENCE/piece"; fi
case "$MODE" in
    hang) : > "$EVIDENCE/hangs"; cat "$EVIDENCE/gate" ;;
    crash) echo "first words"; echo "famous last words" >&2; kill -9 $$ ;;
    silent) exit 0 ;;
    nothing) rm -r "$sealed" ;;
    greedy) x=$(head -c 500000000 /dev/zero | tr '\0' x) ;;
esac
cp "$EVIDENCE/answer" "$6.tmp" && mv "$6.tmp" "$6"
"#;

/// A worker's surroundings. They outlive workers, so that one can be started again.
pub struct World {
    dir: tempfile::TempDir,
    pub manager: Arc<ScriptedManager>,
    pub tasks: Vec<TaskType>,
    pub params: Arc<ScriptedParams>,
    pub environment: Mutex<BTreeMap<&'static str, String>>,
    pub periods: Periods,
    /// Where executors may run, and with how much memory.
    pub confiner: Confiner,
}

/// Executors outlive whoever started them; a test that fails leaves none behind all the same.
impl Drop for World {
    fn drop(&mut self) {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let here = entries.filter(|entry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.dir.path()))
        });
        for pid in here.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["evidence", "program"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let program = dir.path().join("program/executor");
        fs::write(&program, EXECUTOR).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        nix::unistd::mkfifo(&dir.path().join("evidence/gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let short = Duration::from_millis(20);
        let world = Self {
            dir,
            manager: Arc::new(ScriptedManager::new()),
            tasks: BUILT.to_vec(),
            params: Arc::new(ScriptedParams::ready()),
            environment: Mutex::default(),
            confiner: Confiner::default(),
            periods: Periods {
                heartbeat: short,
                push_gap: Duration::from_millis(1),
                return_retry: short,
                refusals_max: 3,
                parameters_retry: short,
                parameters_look: short,
                slow_path: PATIENCE,
                death: PATIENCE,
            },
        };
        world.answers(&ExecutorReport::Done(pc1_output()));
        world
    }

    /// What executors report from now on.
    pub fn answers(&self, report: &ExecutorReport) {
        fs::write(self.evidence("answer"), serde_json::to_vec(report).unwrap()).unwrap();
    }

    /// How executors behave from the next start of the worker on: `hang`, `crash`, `silent`,
    /// `nothing`, `greedy`.
    pub fn mode(&self, mode: &str) {
        self.environment.lock().unwrap().insert("MODE", mode.to_owned());
    }

    pub fn repo_dir(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn evidence(&self, name: &str) -> PathBuf {
        self.dir.path().join("evidence").join(name)
    }

    pub fn told(&self, name: &str) -> String {
        fs::read_to_string(self.evidence(name)).unwrap_or_default()
    }

    /// Where a file of the sector lies in the repo's own storage path.
    pub fn file(&self, kind: FileType) -> PathBuf {
        self.repo_dir().join(kind.name()).join(SECTOR.id.to_string())
    }

    /// Puts the sector's unsealed file into the repo's storage path.
    pub fn with_unsealed(&self) -> Repo {
        let repo = self.repo();
        let path = self.file(FileType::Unsealed);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; 2052]).unwrap();
        repo
    }

    pub fn repo(&self) -> Repo {
        Repo::open_or_create(&self.repo_dir(), FirstPath::Sealing).unwrap()
    }

    pub fn options(&self, repo: Repo) -> WorkerOptions {
        let mut variables: BTreeMap<String, String> = self
            .environment
            .lock()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        variables.insert("EVIDENCE".into(), self.evidence("").to_string_lossy().into_owned());
        WorkerOptions {
            repo,
            name: "w1".into(),
            manager: Arc::clone(&self.manager) as Arc<dyn rpc::ManagerApi>,
            managers: None,
            sector_size: SectorSize::KiB2,
            urls: vec!["http://127.0.0.1:3456/remote".into()],
            token: "token".into(),
            tasks: self.tasks.iter().copied().collect(),
            plan: Default::default(),
            executor: ExecutorOptions {
                program: self.dir.path().join("program/executor"),
                arguments: vec!["exec".into()],
                environment: worker::environment::filtered(std::env::vars_os()),
                replacements: BTreeMap::new(),
                rehearsal: None,
                confiner: self.confiner.clone(),
                spare: false,
                task_environment: BUILT.iter().map(|task| (*task, variables.clone())).collect(),
            },
            settings: Vec::new(),
            params: Arc::clone(&self.params) as Arc<dyn ProofParams>,
            trust: rpc::Trust::system(),
            parallel_fetch_limit: 2,
            resources: detect(Swap::Counted).unwrap(),
            swap: Swap::Counted,
            ignore_resources: false,
            caps: TaskCaps::none(),
            machine: None,
            local: None,
            periods: self.periods,
        }
    }

    /// Starts a worker, again if need be: the lock on the repo goes with the last task of an earlier one, and while
    /// another test forks, its child holds a copy of it for a moment.
    pub async fn start(&self) -> WorkerHandle {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let freed = async {
            while let Err(RepoError::InUse { .. }) = Repo::open(&self.repo_dir()) {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, freed).await.expect("the repo stays locked");
        Worker::start(self.options(self.with_unsealed())).await.unwrap()
    }

    /// The first return of this call.
    pub async fn returned(&self, call: CallId) -> Returned {
        until(&self.manager.returns, |returns| {
            returns.iter().find(|(id, _)| *id == call).map(|(_, returned)| returned.clone())
        })
        .await
    }
}

/// Waits until a call is in a phase; `None` = no longer held.
pub async fn held(handle: &WorkerHandle, call: CallId, phase: Option<CallPhase>) {
    let mut changes = handle.changes();
    let waiting = async {
        loop {
            changes.borrow_and_update();
            let calls = handle.current_state().await.calls;
            if calls.iter().find(|held| held.call == call.to_string()).map(|held| held.phase) == phase {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the call never came to that phase")
}

/// Waits until a file is there: executors have no other way to tell.
pub async fn appears(path: &Path) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !path.exists() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the file never appeared")
}

pub fn pc1_output() -> TaskOutput {
    TaskOutput::PreCommit1(Pc1Output(b"pc1".to_vec()))
}

pub fn attempt(number: u32) -> AttemptId {
    AttemptId { task: TaskId::new(1), attempt: number }
}

pub fn pc1(attempt: Option<AttemptId>) -> Job {
    let work = TaskInput::PreCommit1(PreCommit1Input { ticket: Ticket([1; 32]), pieces: vec![] });
    Job { sector: SECTOR, work, attempt, data: None, gpus: Vec::new() }
}

pub fn with_data(work: TaskInput, data: PieceData) -> Job {
    Job { sector: SECTOR, work, attempt: None, data: Some(data), gpus: Vec::new() }
}

/// Whether a process is there and not dead.
pub fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}

/// Parameters that are there when the test says so.
pub struct ScriptedParams {
    pub there: watch::Sender<bool>,
    /// What `obtain` does, one after another: say this and fail.
    pub failures: Mutex<Vec<&'static str>>,
    /// `obtain` never ends, as with a gateway that sends nothing.
    pub hangs: AtomicBool,
}

impl ScriptedParams {
    pub fn ready() -> Self {
        Self { there: watch::Sender::new(true), failures: Mutex::default(), hangs: AtomicBool::new(false) }
    }
}

#[async_trait]
impl ProofParams for ScriptedParams {
    fn ready(&self, _size: SectorSize) -> bool {
        *self.there.borrow()
    }

    async fn obtain(
        &self,
        _size: SectorSize,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), String> {
        if let Some(why) = self.failures.lock().unwrap().pop() {
            return Err(why.to_owned());
        }
        progress("fetching parameters, 34 %".into());
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        until(&self.there, |there| there.then_some(())).await;
        Ok(())
    }

    fn environment(&self, size: SectorSize) -> Vec<(String, String)> {
        vec![("FIL_PROOFS_PARAMETER_CACHE".into(), format!("/params/{size}"))]
    }
}

pub async fn start_ok(handle: &WorkerHandle, job: Job) -> CallId {
    handle.start(job).await.unwrap()
}
