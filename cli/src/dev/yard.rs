//! The processes of `sealyard dev`: a manager, worker A (AddPiece, PreCommit1), worker B (PreCommit2, Commit).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::api::PledgeOptions;
use rpc::extension::{ManagerOverview, SectorDetail};
use sealtasks::{SectorId, SectorSize};
use tokio::process::{Child, Command};

use super::live::Live;
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};

/// How long a process may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to end when asked.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A manager and two workers, running.
pub struct Yard<'a> {
    processes: &'a Processes,
    connection: Connection,
}

impl<'a> Yard<'a> {
    /// Starts everything. Returns when both workers are registered.
    pub async fn start(
        processes: &'a Processes,
        size: SectorSize,
        prove: bool,
        live: &Live,
    ) -> Result<Self, Failure> {
        let size = size.to_string();
        let init = ["init", "--actor", "f01000", "--sector-size", size.as_str(), "--no-local-storage"];
        processes.complete("init", &init).await?;
        std::fs::write(processes.dir.join("manager/config.toml"), MANAGER_CONFIG)?;
        processes.spawn("manager", &["run", "--listen", "127.0.0.1:0"])?;
        let yard = Self { connection: processes.connect().await?, processes };
        live.say("the manager runs");

        let mut worker_b = vec!["--precommit2"];
        if prove {
            worker_b.extend(["--commit", "--generate-test-params"]);
        }
        processes.spawn_worker("A", &["--addpiece", "--precommit1"])?;
        processes.spawn_worker("B", &worker_b)?;
        yard.wait_for_workers().await?;
        let store = processes.dir.join("B-store");
        let store = store.to_string_lossy();
        let worker_repo = processes.dir.join("B");
        let worker_repo = worker_repo.to_string_lossy();
        processes
            .complete(
                "attach",
                &["storage", "attach", "--init", "--store", "--worker-repo", &worker_repo, &store],
            )
            .await?;
        live.say("workers A (AP, PC1) and B (PC2, C1, C2, FIN) are registered");
        Ok(yard)
    }

    /// Starts one sector.
    pub async fn pledge(&self, stop_after_c1: bool) -> Result<SectorId, Failure> {
        let options = PledgeOptions { stop_after_c1, sector_size: None, miner: None };
        self.connection.manager.pledge(options).await.map_err(rpc_failure)
    }

    /// How the sectors, the workers and the storage stand.
    pub async fn look(&self, sectors: &[SectorId]) -> Result<(Vec<SectorDetail>, ManagerOverview), Failure> {
        let mut details = Vec::new();
        for sector in sectors {
            details.push(self.connection.manager.sector_detail((*sector).into()).await.map_err(rpc_failure)?);
        }
        Ok((details, self.connection.manager.overview().await.map_err(rpc_failure)?))
    }

    /// An error when one of the processes has ended.
    pub fn check_alive(&self) -> Outcome {
        self.processes.check_alive()
    }

    async fn wait_for_workers(&self) -> Outcome {
        let begun = Instant::now();
        loop {
            self.check_alive()?;
            let overview = self.connection.manager.overview().await.map_err(rpc_failure)?;
            let there = |name: &str| overview.workers.iter().any(|worker| worker.name == name);
            if there("A") && there("B") {
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                return Err(Failure::new(Code::Failed, "the workers did not register within a minute"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The manager does no sealing of its own here, so that every task is seen on a remote worker.
const MANAGER_CONFIG: &str = "\
# Written by `sealyard dev`: the manager's own worker takes no tasks.
[Storage]
AllowAddPiece = false
AllowPreCommit1 = false
AllowPreCommit2 = false
AllowCommit = false
AllowUnseal = false
LocalWorkerName = \"manager\"
";

/// The processes of one directory: started, watched and ended.
pub struct Processes {
    program: PathBuf,
    dir: PathBuf,
    running: Mutex<Vec<(&'static str, Child)>>,
}

impl Processes {
    /// None yet. `dir` is where all of them keep everything.
    pub fn new(dir: &Path) -> Result<Self, Failure> {
        Ok(Self { program: std::env::current_exe()?, dir: dir.to_owned(), running: Mutex::default() })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Child)>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn check_alive(&self) -> Outcome {
        for (name, child) in self.running().iter_mut() {
            if let Some(status) = child.try_wait()? {
                let log = self.dir.join(format!("{name}.log"));
                let text = format!("process {name} ended ({status}), its last words: {}", last_lines(&log));
                return Err(Failure::new(Code::Failed, text).advise(format!("its log is {}", log.display())));
            }
        }
        Ok(())
    }

    /// Ends the workers, then the manager, then whatever a killed one of them left running.
    pub async fn stop(&self, live: &Live) {
        let running = std::mem::take(&mut *self.running());
        for (name, mut child) in running.into_iter().rev() {
            drop(child.stdin.take()); // the process reads the end of its pipe as a request to stop
            if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
                live.say(&format!("{name} did not end within {} s and was killed", STOP_MAX.as_secs()));
                let _ = child.kill().await; // it may have ended meanwhile, which is as good
            }
        }
        self.end_left_behind(live).await;
    }

    /// Kills what lost its worker, and returns when all of it is gone: a killed process with much memory takes a moment
    /// to die, and one that was just being started shows up late.
    async fn end_left_behind(&self, live: &Live) {
        let begun = Instant::now();
        let mut killed = Vec::new();
        while begun.elapsed() < STOP_MAX {
            let left = left_behind(&self.program, &self.dir);
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL); // it may have ended meanwhile, which is as good
                if !killed.contains(&pid) {
                    live.say(&format!("process {pid} had lost its worker and was killed"));
                    killed.push(pid);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        live.say(&format!("some processes did not die within {} s", STOP_MAX.as_secs()));
    }

    fn command(&self, name: &str, args: &[&str]) -> Result<Command, Failure> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--repo")
            .arg(self.dir.join("manager"))
            .args(args)
            .env_remove("MINER_API_INFO") // an operator's own yard must not be touched from here
            .env_remove("STORAGE_API_INFO")
            .env_remove("FULLNODE_API_INFO") // its sectors are for no chain
            .current_dir(&self.dir)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOTUS_WORKER_")) {
            command.env_remove(variable);
        }
        Ok(command)
    }

    /// Runs to the end; an error carries what was printed.
    async fn complete(&self, name: &str, args: &[&str]) -> Outcome {
        let status = self.command(name, args)?.stdin(Stdio::null()).status().await?;
        if status.success() {
            return Ok(());
        }
        let log = self.dir.join(format!("{name}.log"));
        Err(Failure::new(Code::Failed, format!("{} failed: {}", args.join(" "), last_lines(&log))))
    }

    /// Starts a process that ends with this one.
    fn spawn(&self, name: &'static str, args: &[&str]) -> Outcome {
        let mut command = self.command(name, args)?;
        let child = command.arg("--until-stdin-closes").stdin(Stdio::piped()).spawn()?;
        self.running().push((name, child));
        Ok(())
    }

    fn spawn_worker(&self, name: &'static str, tasks: &[&str]) -> Outcome {
        let repo = self.dir.join(name);
        let repo = repo.to_string_lossy();
        let mut args =
            vec!["worker", "run", "--worker-repo", &repo, "--address", "127.0.0.1:0", "--name", name];
        args.extend(tasks);
        self.spawn(name, &args)
    }

    /// Waits until the manager answers.
    async fn connect(&self) -> Result<Connection, Failure> {
        let begun = Instant::now();
        loop {
            self.check_alive()?;
            if let Ok(connection) = Connection::from_repo(&self.dir.join("manager"))
                && connection.manager.version().await.is_ok()
            {
                return Ok(connection);
            }
            if begun.elapsed() > START_MAX {
                return Err(Failure::new(Code::Failed, "the manager did not answer within a minute"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The end of a log, for an error message.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Executors below `dir` whose worker was killed: processes of this program that work in a call's directory or, while
/// generating parameters, in `dir` itself. They lead process groups of their own, so no signal to ours reaches them.
fn left_behind(program: &Path, dir: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ours = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let same_program = std::fs::read_link(entry.path().join("exe")).ok()? == program;
        let place = std::fs::read_link(entry.path().join("cwd")).ok()?;
        let in_a_call = place.starts_with(dir) && place.parent()?.ends_with("calls");
        let own = pid == std::process::id().cast_signed();
        (same_program && !own && (in_a_call || place == dir)).then_some(Pid::from_raw(pid))
    };
    entries.flatten().filter_map(ours).collect()
}
