//! Spare executors: processes of this program that are started before there is work for them, so that the start of a task does
//! not wait for what every task needs first ([`crate::waiting`] is their side). Never: does a call that a process of its own
//! could do differently; where there is any doubt a call gets a new process, and no call waits for a spare to be ready.
//!
//! A spare reads its order from a pipe that this process alone holds, so it ends by itself when this process does. Until it is
//! ordered it knows no call and touches nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use sealtasks::{SectorSize, TaskType};
use stores::crash_point;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::confine;
use crate::environment::Environment;
use crate::fork::set_apart;
use crate::process::{self, CALL_VARIABLE, DEATH_MAX};
use crate::waiting::{BEGUN, FAILED, ORDER_MAX, Order, READY, WHY_MAX, WORD};
use crate::worker::WorkerOptions;

/// How many are kept.
pub(crate) const SPARES: usize = 2;
/// The largest sectors that are sealed with them. The network's own take minutes and hours, beside which no start is seen.
const LARGEST: SectorSize = SectorSize::MiB512;
/// What a task needs is read later than a spare starts, if its name begins so or is one of [`READ_LATE`]. Any other variable
/// may have been read already, by the dynamic linker for example.
const READ_LATE_PREFIXES: [&str; 7] =
    ["FIL_PROOFS_", "BELLMAN_", "BELLPERSON_", "NEPTUNE_", "EC_GPU_", "RUST_GPU_TOOLS_", "SEALYARD_"];
const READ_LATE: [&str; 1] = ["RAYON_NUM_THREADS"];
/// A spare that is not ready by then is given up.
const READY_MAX: Duration = Duration::from_secs(20);
/// For so long a call waits for one.
const LIMITS: Limits = Limits { answer: Duration::from_secs(1), death: DEATH_MAX };
/// The next one is started so long after the call of one that was used: a task often follows on a task.
const QUIET: Duration = Duration::from_millis(200);
/// Or so long after it was used, if its call takes longer.
const BUSY_MAX: Duration = Duration::from_secs(30);
/// Or so long after one has died.
const DEATH_PAUSE: Duration = Duration::from_secs(5);
/// So many that never were ready or did not begin their call, one after another, and no more are started for a while,
const FAILURES_MAX: u32 = 3;
/// which lasts so long.
const PAUSE: Duration = Duration::from_secs(60);

/// Where calls get spares from. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spares {
    /// `None` = there are none.
    keeper: Option<mpsc::Sender<oneshot::Sender<Spare>>>,
    /// What they are started with.
    environment: Arc<Environment>,
    health: Health,
}

/// Keeps them.
#[derive(Debug)]
pub(crate) struct Keeper {
    asked: mpsc::Receiver<oneshot::Sender<Spare>>,
    health: Health,
    used: Arc<Notify>,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Arc<Environment>,
    /// The directory of the calls' directories.
    calls: PathBuf,
}

/// A process that waits for an order.
#[derive(Debug)]
pub(crate) struct Spare {
    child: Child,
    pid: u32,
    /// `None` = it was ordered.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
    /// Until when it must be ready; `None` = it is.
    ready_by: Option<Instant>,
    program: Program,
    used: Arc<Notify>,
    health: Health,
    limits: Limits,
}

/// How long one is waited for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// One that has not begun its call by then is killed.
    answer: Duration,
    /// The end of one that was killed; after that the call waits for it as for any executor.
    death: Duration,
}

/// How they do. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ready: usize,
    /// So many failed one after another,
    failures: u32,
    /// the last one so.
    why: String,
    /// None is started before.
    pause_end: Option<Instant>,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, why: String) {
        let mut state = self.state();
        state.why = why;
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES_MAX {
            tracing::warn!(failures = state.failures, "no spare executors are started for {PAUSE:?}");
            (state.failures, state.pause_end) = (0, Some(Instant::now() + PAUSE));
        }
    }

    /// What an operator is told.
    fn told(&self) -> String {
        let state = self.state();
        let left = state.pause_end.map(|end| end.saturating_duration_since(Instant::now()).as_secs());
        let pause = match left.filter(|left| *left > 0) {
            Some(left) => format!("; {FAILURES_MAX} failed, none is started for {left} s: {}", state.why),
            None => String::new(),
        };
        format!("{} ready of {SPARES}{pause}", state.ready)
    }
}

/// Held while the call of a spare runs.
#[derive(Debug)]
pub(crate) struct AtWork(Arc<Notify>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The file of a program, as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Program {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        let changed = (found.ctime(), found.ctime_nsec());
        Ok(Self { device: found.dev(), inode: found.ino(), length: found.len(), changed })
    }
}

/// Whether this task of a sector of this size is given a spare. PreCommit2 and Commit1 hash with Poseidon, whose constants take
/// as long to make as such a task of a small sector. PreCommit1 does not, and of the smallest it leaves them to those two, which
/// follow before others could be started.
pub(crate) fn gains(task: TaskType, size: SectorSize) -> bool {
    match task {
        TaskType::PreCommit2 | TaskType::Commit1 => size <= LARGEST,
        TaskType::PreCommit1 => size <= LARGEST && size > SectorSize::KiB2,
        _ => false,
    }
}

/// Spares for the executors of a worker, and who keeps them, if one of its tasks is given any.
pub(crate) fn spares(worker: &WorkerOptions) -> (Spares, Option<Keeper>) {
    let (options, size) = (&worker.executor, worker.sector_size);
    let of_use = |task: &TaskType| gains(*task, size) && !options.replacements.contains_key(task);
    if !options.spare || options.rehearsal.is_some() || !worker.tasks.iter().any(of_use) {
        return (Spares::default(), None);
    }
    let (keeper, asked) = mpsc::channel(1);
    let environment = Arc::new(options.environment.clone());
    let spares = Spares { keeper: Some(keeper), environment, health: Health::default() };
    let keeper = Keeper {
        asked,
        health: spares.health.clone(),
        used: Arc::default(),
        program: options.program.clone(),
        arguments: options.arguments.clone(),
        environment: Arc::clone(&spares.environment),
        calls: worker.repo.dir().join("calls"),
    };
    (spares, Some(keeper))
}

impl Spares {
    /// How many are ready, and why there are no more; `None` = none are kept.
    pub(crate) fn told(&self) -> Option<String> {
        self.keeper.is_some().then(|| self.health.told())
    }

    /// Has one that is ready become the executor that `order` asks for, as a new process of `program` with these variables would
    /// be. `None`: there is none, or it is dead and has begun nothing. One that was killed because it was not heard, and may have
    /// begun all the same or does not end, is the executor too: how it ends is how the call does, and there are never two.
    pub(crate) async fn begin(
        &self,
        program: &Path,
        environment: &Environment,
        order: &Order,
    ) -> Option<(Child, AtWork)> {
        // First, since it lasts: a spare is not spent on it call after call.
        if !read_late(&self.environment, environment) {
            return None;
        }
        let spare = timeout(LIMITS.answer, self.take()).await.ok()??;
        let at_work = AtWork(Arc::clone(&spare.used));
        if let Some(why) = spare.unfit(program) {
            tracing::debug!(pid = spare.pid, why, "a spare executor is not used");
            // It has no order, and ends without one whether somebody waits for that or not.
            drop(spare);
            return None;
        }
        Some((spare.begin(order).await?, at_work))
    }

    async fn take(&self) -> Option<Spare> {
        let keeper = self.keeper.as_ref().filter(|_| self.health.state().ready > 0)?;
        let (give, given) = oneshot::channel();
        keeper.send(give).await.ok()?;
        given.await.ok()
    }
}

/// The order for a call. `None`: it is none that a spare could be given.
pub(crate) fn order(call: Uuid, task: String, dir: &Path, environment: &Environment) -> Option<Order> {
    let text = |text: &OsString| text.to_str().map(str::to_owned);
    let pair = |(name, value)| Some((text(name)?, text(value)?));
    let environment: Option<Vec<(String, String)>> = environment.iter().map(pair).collect();
    dir.to_str()?;
    let (version, worker) = (Order::VERSION, std::process::id());
    Some(Order { version, worker, call, task, dir: dir.to_owned(), environment: environment? })
}

impl Keeper {
    /// Keeps them until `closed`; none is left then.
    pub(crate) async fn keep(mut self, closed: CancellationToken) {
        let mut kept: Vec<Spare> = Vec::new();
        let mut due = Instant::now();
        loop {
            let start = {
                let mut state = self.health.state();
                state.ready = kept.iter().filter(|spare| spare.ready_by.is_none()).count();
                state.pause_end.map_or(due, |end| end.max(due))
            };
            tokio::select! {
                () = closed.cancelled() => break,
                asked = self.asked.recv() => {
                    let Some(give) = asked else { break };
                    if let Some(at) = kept.iter().position(|spare| spare.ready_by.is_none()) {
                        // One that nobody waits for any more ends when it is dropped.
                        let _ = give.send(kept.remove(at));
                        due = Instant::now() + BUSY_MAX;
                    }
                }
                () = self.used.notified() => due = due.min(Instant::now() + QUIET),
                () = sleep_until(start), if kept.len() < SPARES => match self.begin() {
                    Ok(spare) => kept.push(spare),
                    Err(error) => {
                        due = Instant::now() + DEATH_PAUSE;
                        tracing::warn!(%error, "a spare executor cannot be started");
                        self.health.failed(format!("it cannot be started: {error}"));
                    }
                },
                (at, heard) = heard(&mut kept) => {
                    if kept[at].ready_by.is_some() && heard == Ok(READY) {
                        kept[at].ready_by = None;
                    } else {
                        due = Instant::now() + DEATH_PAUSE;
                        tokio::spawn(kept.remove(at).abandon(heard));
                    }
                }
            }
        }
        self.health.state().ready = 0;
        for mut spare in kept {
            process::kill_group(spare.pid);
            let _ = timeout(spare.limits.death, spare.child.wait()).await;
        }
    }

    fn begin(&self) -> io::Result<Spare> {
        let program = Program::of(&self.program)?;
        // As long as the words of a call.
        let nobody = self.calls.join(Uuid::nil().to_string());
        let mut environment = Environment::clone(&self.environment);
        environment.insert(CALL_VARIABLE.into(), Uuid::nil().to_string().into());
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(WORD)
            .arg("--input")
            .arg(nobody.join("request.json"))
            .arg("--output")
            .arg(nobody.join("report.json"))
            // Whatever works below the calls' directory works for a call.
            .current_dir(self.calls.parent().unwrap_or(&self.calls))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .envs(environment);
        set_apart(&mut command);
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it has no process id or no pipes");
        let pid = child.id().ok_or_else(gone)?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).ok_or_else(gone)?;
        let (ready_by, used) = (Some(Instant::now() + READY_MAX), Arc::clone(&self.used));
        let (orders, health, limits) = (Some(orders), self.health.clone(), LIMITS);
        Ok(Spare { child, pid, orders, answers, ready_by, program, used, health, limits })
    }
}

/// Which of them said something first, or why it says nothing any more.
async fn heard(kept: &mut [Spare]) -> (usize, Result<u8, String>) {
    if kept.is_empty() {
        return std::future::pending().await;
    }
    let (heard, at, _) = select_all(kept.iter_mut().map(|spare| Box::pin(spare.hear()))).await;
    (at, heard)
}

impl Spare {
    /// What it says next, or why it says nothing any more: it is late with being ready, or has ended.
    async fn hear(&mut self) -> Result<u8, String> {
        let said = self.answers.read_u8();
        let said = match self.ready_by {
            None => said.await,
            Some(end) => {
                timeout_at(end, said).await.map_err(|_| format!("it was not ready within {READY_MAX:?}"))?
            }
        };
        said.map_err(|error| format!("its pipe: {error}"))
    }

    /// Why a new process of this program would be another than this; `None` = it would not.
    fn unfit(&self, program: &Path) -> Option<&'static str> {
        if Program::of(program).ok() != Some(self.program) {
            return Some("the program's file has changed");
        }
        if !confine::like_this_process(self.pid) {
            return Some("it runs on other CPUs or in another control group than this process");
        }
        None
    }

    /// Has it become the executor of a call. `None`: it is dead and has begun nothing.
    async fn begin(mut self, order: &Order) -> Option<Child> {
        let heard = match timeout(self.limits.answer, self.order(order)).await {
            Ok(answer) => answer.map_err(|error| format!("its pipes: {error}")),
            // A worker that stood still may hear its clock before the answer that has been there for long.
            Err(_) => self
                .unheard()
                .ok_or_else(|| format!("it did not begin its call within {:?}", self.limits.answer)),
        };
        if heard == Ok(BEGUN) {
            self.health.state().failures = 0;
            return Some(self.child);
        }
        self.abandon(heard).await
    }

    /// Orders it, and gives what it says to that.
    async fn order(&mut self, order: &Order) -> io::Result<u8> {
        let mut orders = self.orders.take().ok_or_else(|| io::Error::other("it was ordered before"))?;
        let text = serde_json::to_vec(order)?;
        if text.len() as u64 >= ORDER_MAX {
            return Err(io::Error::other("the order is too long"));
        }
        orders.write_all(&text).await?;
        // Its end is the end of the order.
        drop(orders);
        crash_point("worker.ordered");
        self.answers.read_u8().await
    }

    /// What it has said, whether or not the runtime knows that it has.
    fn unheard(&self) -> Option<u8> {
        // The pipe does not block, and a copy of its descriptor does not either.
        let mut answers = File::from(self.answers.as_fd().try_clone_to_owned().ok()?);
        let mut said = [0];
        (answers.read(&mut said).ok()? == said.len()).then_some(said[0])
    }

    /// Kills one that did not say what it should. It says that it begins before it does, and what it said stays in the pipe,
    /// whose other end nobody else has: so once that has been read to its end and the process is dead, it is known to have begun
    /// nothing (`None`). Any other is the executor of its call, dead or not, and not waited for yet.
    async fn abandon(mut self, heard: Result<u8, String>) -> Option<Child> {
        process::kill_group(self.pid);
        let end = Instant::now() + self.limits.death;
        let (mut said, mut ended): (Vec<u8>, _) = (heard.iter().copied().collect(), None);
        let mut rest = (&mut self.answers).take(WHY_MAX);
        let read = timeout_at(end, rest.read_to_end(&mut said)).await;
        let is_read = read.is_ok_and(|read| read.is_ok());
        if is_read && said.first() != Some(&BEGUN) {
            ended = timeout_at(end, self.child.wait()).await.ok().and_then(Result::ok);
        }
        let why = match (said.first(), heard) {
            (Some(&FAILED), _) => String::from_utf8_lossy(&said[1..]).into_owned(),
            (_, Err(why)) => why,
            (_, Ok(other)) => format!("it said {other}"),
        };
        let status = ended.map(|status| status.to_string());
        tracing::warn!(pid = self.pid, why, status, "a spare executor was ended, or has ended by itself");
        // One that dies while nobody needs it has failed nobody.
        if self.ready_by.is_some() || self.orders.is_none() {
            self.health.failed(why);
        }
        ended.is_none().then_some(self.child)
    }
}

/// Whether an executor's variables differ from a spare's in nothing that may have been read already.
fn read_late(spare: &Environment, executor: &Environment) -> bool {
    let is_late = |name: &OsStr| {
        let name = name.to_str();
        name.is_some_and(|name| {
            READ_LATE.contains(&name) || READ_LATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    let names = spare.keys().chain(executor.keys());
    names.into_iter().all(|name| spare.get(name) == executor.get(name) || is_late(name))
}

#[cfg(test)]
mod tests;
