//! Runs one task as a program of its own: writes its request, feeds it the piece's bytes on descriptor 3, waits, and
//! reads its report. Never: where the files come from or what becomes of the result.
//!
//! The program is called as `<program> <arguments…> <task> --input <request.json> --output <report.json>` in the call's
//! directory, as the leader of its own session and process group, with the filtered environment. Killing the group is how
//! a call is stopped. It outlives its worker; a worker that starts anew waits for it as this one did, and reads the same
//! report, only that nobody tells it the exit status of a process that is not its child.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rpc::extension::GpuShare;
use rpc::reader::PieceStream;
use sealtasks::{
    ExecutorFailure, ExecutorReport, ExecutorRequest, FailureClass, TaskInput, TaskOutput, TaskType,
};
use stores::Rehearsal;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Variables;
use crate::confine::{Confiner, Place};
use crate::environment::Environment;
use crate::executor_log;
use crate::feed::{self, FeedError};
use crate::fork::{hand_over, set_apart};
use crate::journal::ProcessMark;
use crate::process::Orphan;
use crate::report::{answers, compute, killed, read_report};
use crate::spare::{self, AtWork, Spares};
use crate::usage::{Usage, Watch};
use crate::{gpus, process, usage};

/// How often a running executor's log is cut.
const LOG_CHECK: Duration = Duration::from_secs(1);

/// What runs the tasks.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Arguments before the task's short code, usually `exec`.
    pub arguments: Vec<OsString>,
    /// All variables that executors get; see [`crate::environment::filtered`].
    pub environment: Environment,
    /// What takes the place of that program for single tasks.
    pub replacements: BTreeMap<TaskType, Replacement>,
    /// How its storage paths are opened when its tasks are only played; `None`: they are done.
    pub rehearsal: Option<Rehearsal>,
    /// Where they may run, and with how much memory.
    pub confiner: Confiner,
    /// Whether some are started ahead of their calls.
    pub spare: bool,
    /// Variables per task, over the others; from `config.toml`.
    pub task_environment: BTreeMap<TaskType, Variables>,
}

/// A program for one task, in place of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The program: an absolute path.
    pub program: PathBuf,
    /// Arguments before the task's short code.
    pub arguments: Vec<OsString>,
}

/// One run to be started.
pub(crate) struct Run<'a> {
    /// The call.
    pub call: Uuid,
    /// The call's directory; made if need be.
    pub dir: PathBuf,
    /// The task it is scheduled as; `None` = scrubbing, which runs at low priority beside the tasks.
    pub task: Option<TaskType>,
    /// What the program reads.
    pub request: ExecutorRequest,
    /// Variables that say where the proof parameters are.
    pub parameters: Vec<(String, String)>,
    /// The piece's bytes.
    pub data: Option<PieceStream>,
    /// The GPUs that are its own; empty = whatever the environment says.
    pub gpus: Vec<GpuShare>,
    /// Where it may take a process from that was started ahead; `None` = it may not.
    pub spares: Option<&'a Spares>,
}

/// A running executor.
pub(crate) struct Executor {
    call: Uuid,
    process: Process,
    mark: ProcessMark,
    feed: Option<Feed>,
    request: ExecutorRequest,
    dir: PathBuf,
    /// Given back when it has ended.
    place: Place,
    /// It was a spare one.
    _at_work: Option<AtWork>,
}

/// How an executor's end is learnt.
enum Process {
    Child {
        child: Child,
        watch: Watch,
    },
    /// An earlier life of the worker started it.
    Orphan {
        orphan: Orphan,
        /// What it took when it was last looked at.
        seen: Arc<Mutex<Usage>>,
    },
    /// The same, and it has ended since.
    Over,
}

impl Process {
    /// Returns when it has ended; once only.
    async fn ended(&mut self) {
        match self {
            // What it took is told before it is reaped.
            Self::Child { watch, .. } => watch.ended().await,
            Self::Orphan { orphan, .. } => orphan.wait().await,
            Self::Over => {}
        }
    }

    /// Looks at what it takes where nobody will tell at its end.
    fn look(&self, pid: u32) {
        if let Self::Orphan { seen, .. } = self
            && let Some(usage) = usage::so_far(pid)
        {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        }
    }

    /// Waits until nothing of it is left; `None` = how it ended is not known.
    async fn reap(&mut self) -> std::io::Result<Option<ExitStatus>> {
        match self {
            Self::Child { child, .. } => child.wait().await.map(Some),
            Self::Orphan { orphan, .. } => {
                orphan.wait().await;
                Ok(None)
            }
            Self::Over => Ok(None),
        }
    }
}

impl ExecutorOptions {
    /// Whether executors of this task label with several cores, which keeps all layers on disk.
    pub(crate) fn uses_multicore_sdr(&self, task: TaskType) -> bool {
        const NAME: &str = "FIL_PROOFS_USE_MULTICORE_SDR";
        let own = self.task_environment.get(&task).and_then(|own| own.get(NAME)).cloned();
        let of_all = || {
            let value = self.environment.get(std::ffi::OsStr::new(NAME));
            value.map(|value| value.to_string_lossy().into_owned())
        };
        own.or_else(of_all).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
    }

    /// Starts a run.
    ///
    /// # Errors
    /// Class `Environment`: the program cannot be started or its directory cannot be written.
    pub(crate) async fn spawn(&self, run: Run<'_>) -> Result<Executor, ExecutorFailure> {
        let Run { call, dir, task, request, parameters, data, gpus, spares } = run;
        let replacement = task.and_then(|task| self.replacements.get(&task));
        let (path, arguments) =
            replacement.map_or((&self.program, &self.arguments), |other| (&other.program, &other.arguments));
        let program = path.display();
        let broken = |what: &str, error: &dyn std::fmt::Display| ExecutorFailure {
            class: FailureClass::Environment,
            message: format!("executor {program}: {what}: {error}"),
        };
        // A Commit2 request is as long as Commit1's output.
        let at = dir.clone();
        let (request, log) = tokio::task::spawn_blocking(move || {
            let log = write_request(&at, &request)?;
            std::io::Result::Ok((request, log))
        })
        .await
        .map_err(|error| broken("request.json", &error))?
        .map_err(|error| broken("request.json", &error))?;
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = task.map_or_else(|| Ok(Place::anywhere()), |task| self.confiner.place(task, &name));
        let place = place.map_err(|e| broken("no limit on its memory", &e))?;
        let environment = self.variables(call, task, parameters, &gpus);

        // What a running process cannot be given is left to a new one.
        let size = request.sector.proof.sector_size();
        let of_use = replacement.is_none() && data.is_none() && gpus.is_empty() && place.is_anywhere();
        let spares = spares.filter(|_| of_use && task.is_some_and(|task| spare::gains(task, size)));
        let order = || spare::order(call, word(&request.work), &dir, &environment);
        let begun = match spares.and_then(|spares| Some((spares, order()?))) {
            Some((spares, order)) => spares.begin(path, &environment, &order).await,
            None => None,
        };
        let (child, feed, at_work) = match begun {
            Some((child, at_work)) => (child, None, Some(at_work)),
            None => {
                let at = dir.clone();
                let forgot = tokio::task::spawn_blocking(move || forget_reports(&at)).await;
                forgot.map_err(|e| broken("report.json", &e))?.map_err(|e| broken("report.json", &e))?;
                let errors = log.try_clone().map_err(|e| broken("log", &e))?;
                let mut command = Command::new(path);
                command.args(arguments).arg(word(&request.work)).arg("--input").arg(dir.join("request.json"));
                command.arg("--output").arg(dir.join("report.json")).current_dir(&dir);
                command.stdin(Stdio::null()).stdout(log).stderr(errors).env_clear().envs(environment);
                let (child, feed) =
                    start(command, data, &place).await.map_err(|(what, error)| broken(what, &error))?;
                (child, feed, None)
            }
        };
        let pid = child.id().ok_or_else(|| broken("start", &"it has no process id"))?;
        // A process that is gone already has no start time; nothing can be found again then, nor needs to be.
        let starttime = process::start_time(pid).unwrap_or_default();
        place.check(pid);
        let mark = ProcessMark { pid, starttime };
        let process = Process::Child { child, watch: Watch::start(pid) };
        Ok(Executor { call, process, mark, feed, request, dir, place, _at_work: at_work })
    }

    /// All variables of an executor.
    fn variables(
        &self,
        call: Uuid,
        task: Option<TaskType>,
        parameters: Vec<(String, String)>,
        gpus: &[GpuShare],
    ) -> Environment {
        let mut all = self.environment.clone();
        all.extend(parameters.into_iter().map(|(name, value)| (name.into(), value.into())));
        // Before those of the operator's `config.toml`, which have the last word.
        all.extend(gpus::variables(gpus, &self.environment));
        let own = task.and_then(|task| self.task_environment.get(&task)).into_iter().flatten();
        all.extend(own.map(|(name, value)| (name.into(), value.into())));
        all.insert(process::CALL_VARIABLE.into(), call.to_string().into());
        all
    }
}

type Feed = JoinHandle<Result<u64, FeedError>>;

/// Starts a process for a call; on failure none is left.
async fn start(
    mut command: Command,
    data: Option<PieceStream>,
    place: &Place,
) -> Result<(Child, Option<Feed>), (&'static str, String)> {
    let failed = |what| move |error: std::io::Error| (what, error.to_string());
    set_apart(&mut command);
    let feeding = match data {
        None => None,
        Some(data) => {
            let (reader, writer) = std::io::pipe().map_err(failed("pipe"))?;
            hand_over(&mut command, reader.into()).map_err(failed("descriptor 3"))?;
            Some((data, writer))
        }
    };
    place.keep(&mut command).map_err(|error| ("no limit on its memory", error))?;
    let mut child = command.spawn().map_err(failed("it cannot be started"))?;
    // The command holds the read end; once it is gone the child's is the only one, and its death ends the feed.
    drop(command);
    match feeding.map(|(data, writer)| feed::start(data, writer.into())).transpose() {
        Ok(feed) => Ok((child, feed)),
        Err(error) => {
            child.id().into_iter().for_each(process::kill_group);
            // Nothing of it may be left when its files are removed.
            let _ = child.wait().await;
            Err(("pipe", error.to_string()))
        }
    }
}

impl Executor {
    /// One that an earlier life of the worker started for `request` in `dir`; no orphan = it has ended since. What it takes
    /// is seen in `seen`.
    pub(crate) fn taken_over(
        (call, dir): (Uuid, PathBuf),
        orphan: Option<Orphan>,
        request: ExecutorRequest,
        place: Place,
        seen: Arc<Mutex<Usage>>,
    ) -> Self {
        let gone = || ProcessMark { pid: 0, starttime: String::new() };
        let mark = orphan.as_ref().map_or_else(gone, |orphan| orphan.mark().clone());
        let process = orphan.map_or(Process::Over, |orphan| Process::Orphan { orphan, seen });
        Self { call, process, mark, feed: None, request, dir, place, _at_work: None }
    }

    /// How to find the process again.
    pub(crate) fn mark(&self) -> &ProcessMark {
        &self.mark
    }

    /// Where what it took of the machine will be when it has ended; `None` = it is no child of this process.
    pub(crate) fn usage(&self) -> Option<Arc<OnceLock<Usage>>> {
        match &self.process {
            Process::Child { watch, .. } => Some(watch.found()),
            Process::Orphan { .. } | Process::Over => None,
        }
    }

    /// Waits for the end. When `stop` comes first, the process group is killed and the class is `Aborted`. Of an executor
    /// that gives no result nothing runs on: what it made is about to be removed. With `leaving` it is left to the worker's
    /// next life instead, unless it is fed.
    ///
    /// # Errors
    /// Why there is no result: the executor's own words, or how it ended with the end of its log.
    pub(crate) async fn finish(
        mut self,
        stop: &CancellationToken,
        leaving: &AtomicBool,
    ) -> Result<TaskOutput, ExecutorFailure> {
        let (call, dir, is_fed) = (self.call, self.dir.clone(), self.feed.is_some());
        let leaves = || !is_fed && leaving.load(Ordering::Relaxed);
        let result = self.wait_for_result(stop, &leaves).await.map_err(|failure| self.explained(failure));
        if result.is_err()
            && !leaves()
            && let Err(error) = process::end_leftovers(None, call, &dir).await
        {
            tracing::error!(%call, error, "helpers of an executor run on");
        }
        result
    }

    fn explained(&self, failure: ExecutorFailure) -> ExecutorFailure {
        match failure.class {
            FailureClass::Aborted => failure,
            _ => self.place.explain(&word(&self.request.work), failure),
        }
    }

    async fn wait_for_result(
        &mut self,
        stop: &CancellationToken,
        leaves: &impl Fn() -> bool,
    ) -> Result<TaskOutput, ExecutorFailure> {
        let log = self.dir.join("log");
        let mut checks = tokio::time::interval(LOG_CHECK);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                () = self.process.ended() => break Some(self.process.reap().await),
                () = stop.cancelled() => break None,
                _ = checks.tick() => {
                    self.process.look(self.mark.pid);
                    let log = log.clone();
                    // A log that could not be cut this time is tried again.
                    let _ = tokio::task::spawn_blocking(move || executor_log::cut(&log)).await;
                }
            }
        };
        let Some(ended) = ended else {
            if leaves() {
                let message = "the worker ends and leaves its executor running".into();
                return Err(ExecutorFailure { class: FailureClass::Aborted, message });
            }
            // The process is there still: nobody has waited for a child yet, and an orphan was not seen to end.
            if !matches!(self.process, Process::Over) {
                process::kill_group(self.mark.pid);
            }
            // Waited for, so that nothing of it is left when its files are removed.
            let _ = self.process.reap().await;
            self.end_feed().await.ok();
            return Err(ExecutorFailure { class: FailureClass::Aborted, message: "task aborted".into() });
        };
        let fed = self.end_feed().await;
        let status = ended.map_err(|error| compute(format!("the executor cannot be waited for: {error}")))?;
        let dir = self.dir.clone();
        let (files, bytes) = (self.request.files.clone(), self.request.sector.proof.sector_size().bytes());
        let read = move || read_report(&dir, status, |message| killed(status, message, &files, bytes));
        let report = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| compute("reading the executor's report was interrupted".into()))?;
        // Bytes that never came look like the end of the piece to the executor; its result then means nothing.
        fed?;
        match report? {
            ExecutorReport::Done(output) if answers(&self.request, &output) => Ok(output),
            ExecutorReport::Done(_) => Err(compute("the executor's report is about another task".into())),
            ExecutorReport::Failed(failure) => Err(failure),
        }
    }

    async fn end_feed(&mut self) -> Result<(), ExecutorFailure> {
        let Some(feed) = self.feed.take() else { return Ok(()) };
        feed.abort();
        match feed.await {
            Ok(Err(FeedError::Source(error))) => Err(ExecutorFailure {
                class: FailureClass::Network,
                message: format!("the piece's bytes ended early: {error}"),
            }),
            // The executor closed its end, or did not wait for the piece's end: its report says why.
            Ok(Ok(_) | Err(FeedError::Executor)) | Err(_) => Ok(()),
        }
    }
}

/// The word that an executor is called with: the task's short code in lower case.
fn word(work: &TaskInput) -> String {
    match work {
        TaskInput::Vanilla(_) => "vanilla".to_owned(),
        work => work.task_type().map_or("scrub".to_owned(), |task| task.short().to_lowercase()),
    }
}

/// Makes the call's directory with the request in it and gives the log to be written.
fn write_request(dir: &Path, request: &ExecutorRequest) -> std::io::Result<File> {
    // Its report is to be found after a power cut.
    stores::make_dir(dir)?;
    forget_reports(dir)?;
    std::fs::write(dir.join("request.json"), serde_json::to_vec(request)?)?;
    executor_log::create(&dir.join("log"))
}

/// Removes what another process than the one that is about to be started may have reported.
fn forget_reports(dir: &Path) -> std::io::Result<()> {
    for name in ["report.json", "report.json.tmp"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
