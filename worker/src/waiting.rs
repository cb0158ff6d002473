//! The process on the other side of `worker::spare`: it has made what takes long to make, waits for an order, and then becomes
//! the executor of a call, found, watched and killed as one that was started for it. Never: begins where its worker is gone, or
//! where it cannot be found.
//!
//! A program that starts has its call in its environment and its command line, and there the kernel shows them to whoever
//! looks for executors. This process has the [nil](Uuid::nil) call there instead, which is as long, and writes the true one
//! over it. It does so in the order in which a new process comes to the same: first it works in the call's directory, then it
//! makes sure that its worker lives; a worker's next life therefore finds it by its directory however early the other one
//! died (see `process::set_apart`).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::unistd;
use serde::{Deserialize, Serialize};
use stores::crash_point;
use uuid::Uuid;

use crate::error::chain;
use crate::process::CALL_VARIABLE;

/// The word in the place of a task's short code, at least as long as any of these.
pub const WORD: &str = "spare";
/// Longest order (bytes): less than a pipe takes at once.
pub(crate) const ORDER_MAX: u64 = 48 << 10;
/// What a process says when it has made all that it makes beforehand.
pub(crate) const READY: u8 = b'r';
/// What it says when it has become the executor of its call.
pub(crate) const BEGUN: u8 = b'b';
/// What it says when it cannot become what it should, before why in words; then it ends.
pub(crate) const FAILED: u8 = b'f';
/// No more of these words is said (bytes).
pub(crate) const WHY_MAX: u64 = 1 << 10;

/// What a worker orders.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// [`Order::VERSION`]: while a program is upgraded its worker is of another one.
    pub version: u32,
    /// The worker's process.
    pub worker: u32,
    /// The call.
    pub call: Uuid,
    /// The task's short code in lower case.
    pub task: String,
    /// The call's directory, with the request and an empty log in it.
    pub dir: PathBuf,
    /// All variables of the executor.
    pub environment: Vec<(String, String)>,
}

impl Order {
    /// The version of this form.
    pub(crate) const VERSION: u32 = 1;
}

/// What the process is to do now; it works in the call's directory.
#[derive(Debug)]
pub struct Work {
    /// The task's short code in lower case.
    pub task: String,
    /// The request.
    pub input: PathBuf,
    /// Where the report goes.
    pub output: PathBuf,
}

/// Why a process that waited did not become an executor. Its worker starts another one instead.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Something of the system did not work.
    #[error("{doing}")]
    Io {
        /// What.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The order means nothing.
    #[error("the order is none that this program understands")]
    Order(#[source] serde_json::Error),
    /// It is of another version of the worker.
    #[error("the order's version is {found}; this program understands version {}", Order::VERSION)]
    Version {
        /// The order's.
        found: u32,
    },
    /// A task whose executor begins as another program.
    #[error("task {task} is done by no process that was started ahead")]
    Task {
        /// Its short code.
        task: String,
    },
    /// The worker has ended meanwhile.
    #[error("the worker with process id {worker} has ended; nothing is begun")]
    Orphan {
        /// Its process.
        worker: u32,
    },
    /// A setting made now might be read by a thread at the same time.
    #[error("the process has {threads} threads; only one that is alone can be given its settings")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// It could not be found as an executor.
    #[error("the call's id cannot be written where it is looked for: {why}")]
    Unnamed {
        /// What is amiss.
        why: &'static str,
    },
}

/// Calls `warm`, which makes what every task needs and must neither start a thread nor read a setting; then waits for an order
/// on standard input. `None`: the worker has ended, or needs this process no longer. Else the process is the executor of a call
/// from now on, with its directory, environment, log and name.
///
/// # Errors
/// It cannot become that; it must end.
pub fn wait(warm: impl FnOnce()) -> Result<Option<Work>, WaitError> {
    let answers =
        io::stdout().as_fd().try_clone_to_owned().map_err(io_error("taking the pipe for answers"))?;
    let mut answers = File::from(answers);
    let become_it = || {
        let orders =
            io::stdin().as_fd().try_clone_to_owned().map_err(io_error("taking the pipe for orders"))?;
        let name = Name::find()?;
        warm();
        alone()?;
        answers.write_all(&[READY]).map_err(io_error("telling the worker that this process is ready"))?;
        obey(File::from(orders), &name)
    };
    let work = become_it();
    // A worker that is gone by now hears nothing, and will find this process by its directory.
    let _ = match &work {
        Ok(None) => Ok(()),
        Ok(Some(_)) => answers.write_all(&[BEGUN]),
        Err(error) => {
            let why = chain(error);
            let length = why.floor_char_boundary(usize::try_from(WHY_MAX).unwrap_or(0));
            answers.write_all(&[&[FAILED], &why.as_bytes()[..length]].concat())
        }
    };
    work
}

/// Waits for the order and becomes what it asks for.
fn obey(orders: File, name: &Name) -> Result<Option<Work>, WaitError> {
    let mut text = Vec::new();
    orders.take(ORDER_MAX).read_to_end(&mut text).map_err(io_error("waiting for an order"))?;
    if text.is_empty() {
        return Ok(None);
    }
    // An order that breaks off, because its worker died, is no JSON.
    let order: Order = serde_json::from_slice(&text).map_err(WaitError::Order)?;
    begin(&order, name)?;
    let Order { task, dir, .. } = order;
    Ok(Some(Work { task, input: dir.join("request.json"), output: dir.join("report.json") }))
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> WaitError {
    move |source| WaitError::Io { doing, source }
}

/// Whether nobody else reads this process's settings while they are made.
fn alone() -> Result<(), WaitError> {
    let threads = fs::read_dir("/proc/self/task").map_err(io_error("counting threads"))?.count();
    if threads == 1 { Ok(()) } else { Err(WaitError::Threads { threads }) }
}

/// Becomes the executor of a call.
fn begin(order: &Order, name: &Name) -> Result<(), WaitError> {
    if order.version != Order::VERSION {
        return Err(WaitError::Version { found: order.version });
    }
    // It starts itself anew with its command line, which is gone here.
    if order.task == "scrub" {
        return Err(WaitError::Task { task: order.task.clone() });
    }
    alone()?;
    std::env::set_current_dir(&order.dir).map_err(io_error("entering the call's directory"))?;
    if u32::try_from(unistd::getppid().as_raw()) != Ok(order.worker) {
        return Err(WaitError::Orphan { worker: order.worker });
    }
    // First the variables: nothing refers to the memory any more then that the name is written to.
    set_environment(&order.environment);
    crash_point("executor.ordered");
    name.take(order)?;
    crash_point("executor.named");
    take_log(&order.dir.join("log")).map_err(io_error("opening the call's log"))
}

/// Standard output and error go to the call's log, and nothing is read.
fn take_log(log: &Path) -> io::Result<()> {
    let log = OpenOptions::new().append(true).open(log)?;
    unistd::dup2_stdout(&log)?;
    unistd::dup2_stderr(&log)?;
    unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(())
}

/// Where `/proc` shows what this process was started with.
struct Name {
    memory: File,
    /// The command line, and its address.
    words: (Vec<u8>, u64),
    /// The address of the call's id in the environment.
    call: u64,
}

impl Name {
    fn find() -> Result<Self, WaitError> {
        let failed = io_error("looking for where a call's id is looked for");
        let unnamed = |why| WaitError::Unnamed { why };
        let stat = fs::read_to_string("/proc/self/stat").map_err(&failed)?;
        // Fields 48 and 50, counted behind the program's name in parentheses: where arguments and environment begin.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
        let addresses = fields.skip(45).take(3).filter_map(|field| field.parse().ok().filter(|at| *at > 0));
        let addresses: Vec<u64> = addresses.collect();
        let [arguments, _, environment] = addresses[..] else {
            return Err(unnamed("/proc/self/stat does not tell where that is"));
        };
        let words = fs::read("/proc/self/cmdline").map_err(&failed)?;
        let variables = fs::read("/proc/self/environ").map_err(&failed)?;
        let at = place_of_call(&variables).ok_or_else(|| unnamed("the environment has no place for it"))?;
        let memory = OpenOptions::new().write(true).open("/proc/self/mem").map_err(&failed)?;
        Ok(Self { memory, words: (words, arguments), call: environment.saturating_add(at) })
    }

    /// Writes call and task there. This is safe code's way to bytes that the kernel put there before `main` and that nobody here
    /// holds a reference to: the standard library copies arguments and variables when it is asked for them. It finds the
    /// arguments by where they began, though: from now on [`std::env::args`] gives pieces of words, and must not be asked.
    fn take(&self, order: &Order) -> Result<(), WaitError> {
        let failed = io_error("writing the call's id where it is looked for");
        let unnamed = |why| WaitError::Unnamed { why };
        let (old, at) = &self.words;
        let words =
            words_for(old, order).ok_or_else(|| unnamed("the command line is shorter than the call's"))?;
        self.memory.write_all_at(&words, *at).map_err(&failed)?;
        let call = order.call.to_string();
        self.memory.write_all_at(call.as_bytes(), self.call).map_err(&failed)?;
        let named = fs::read("/proc/self/environ").map_err(&failed)?;
        let entry = format!("{CALL_VARIABLE}={call}");
        let is_named = named.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes());
        is_named.then_some(()).ok_or_else(|| unnamed("what was written there is not what is read there"))
    }
}

/// The command line of the call's executor, of the length of this one's: the task in the place of [`WORD`], the call in that of
/// the nil call. `None`: it does not fit.
fn words_for(old: &[u8], order: &Order) -> Option<Vec<u8>> {
    let nobody = Uuid::nil().to_string();
    let call = order.call.to_string();
    let word = |word: &[u8]| -> Vec<u8> {
        if word == WORD.as_bytes() {
            return order.task.as_bytes().to_vec();
        }
        match word.windows(nobody.len()).position(|part| part == nobody.as_bytes()) {
            Some(at) => [&word[..at], call.as_bytes(), &word[at + nobody.len()..]].concat(),
            None => word.to_vec(),
        }
    };
    let words: Vec<Vec<u8>> = old.split(|byte| *byte == 0).map(word).collect();
    let mut text = words.join(&0);
    if text.len() > old.len() {
        return None;
    }
    text.resize(old.len(), 0);
    Some(text)
}

/// Where in an environment the nil call's id begins.
fn place_of_call(environment: &[u8]) -> Option<u64> {
    let entry = format!("{CALL_VARIABLE}={}", Uuid::nil());
    let mut at = 0;
    for variable in environment.split(|byte| *byte == 0) {
        if variable == entry.as_bytes() {
            return u64::try_from(at + CALL_VARIABLE.len() + 1).ok();
        }
        at += variable.len() + 1;
    }
    None
}

/// Makes these the variables of this process, and no others.
#[expect(unsafe_code, reason = "the standard library has no safe way to set a variable")]
fn set_environment(variables: &[(String, String)]) {
    let is_wanted = |name: &OsStr| variables.iter().any(|(wanted, _)| wanted.as_bytes() == name.as_bytes());
    for (name, _) in std::env::vars_os().filter(|(name, _)| !is_wanted(name)) {
        // SAFETY: this process has one thread, as its caller has just counted, and no code of others runs beside it.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in variables {
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(task: &str) -> Order {
        let call = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        Order {
            version: Order::VERSION,
            worker: 1,
            call,
            task: task.to_owned(),
            dir: "/calls/x".into(),
            environment: Vec::new(),
        }
    }

    #[test]
    fn a_command_line_becomes_the_calls_and_keeps_its_length() {
        let nobody = Uuid::nil();
        let old = format!("/bin/sealyard\0exec\0spare\0--input\0/w/calls/{nobody}/request.json\0");
        let order = order("c1");
        let new = words_for(old.as_bytes(), &order).unwrap();
        assert_eq!(new.len(), old.len());
        let words = format!("/bin/sealyard\0exec\0c1\0--input\0/w/calls/{}/request.json\0", order.call);
        assert_eq!(new, format!("{words}\0\0\0").as_bytes());
        assert_eq!(words_for(b"sealyard\0exec\0spare", &super::tests::order("vanilla")), None, "too long");
    }

    #[test]
    fn the_place_of_the_call_is_found_among_other_variables() {
        let entry = format!("{CALL_VARIABLE}={}", Uuid::nil());
        let decoy = format!("X{entry}");
        let text = format!("PATH=/bin\0{decoy}\0{entry}\0HOME=/\0");
        let at = usize::try_from(place_of_call(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(&text[at - CALL_VARIABLE.len() - 1..at + 36], entry);
        assert_eq!(text.find(&decoy).unwrap() + decoy.len() + 1, at - CALL_VARIABLE.len() - 1);
        assert_eq!(place_of_call(b"SEALYARD_CALL=of somebody\0"), None);
    }
}
