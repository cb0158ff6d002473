//! What the whole-system tests share: the program just built, run as an operator would, with a bound on everything.
#![allow(dead_code, reason = "each test target uses its part of this")]
#![allow(clippy::print_stderr, reason = "a test that failed shows what its daemons said")]

pub mod addresses;
pub mod at_work;
pub mod dice;
pub mod go;
pub mod hosts;
pub mod labelling;
pub mod large_cache;
pub mod managers;
pub mod parameters;
pub mod spares;
pub mod trio;
pub mod wire;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The program.
pub const SEALYARD: &str = env!("CARGO_BIN_EXE_sealyard");

/// No single command of a test may take longer.
pub const COMMAND_MAX: Duration = Duration::from_secs(300);

/// So much of what a daemon said is shown when a test fails.
const LAST_LINES: usize = 100;

/// The program with an environment that no operator's settings reach into.
pub fn sealyard(home: &Path) -> Command {
    let mut command = Command::new(SEALYARD);
    quiet(&mut command, home);
    command
}

/// Takes out what could steer the program from outside, and keeps its default repos below `home`.
pub fn quiet(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars() {
        if ["LOTUS_", "SEALYARD_", "MINER_", "STORAGE_API", "WORKER_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            && name != "SEALYARD_INSECURE_PARAMETERS"
        {
            command.env_remove(name);
        }
    }
    // Generated parameters are found where they are for everybody, although HOME moves.
    if std::env::var_os("SEALYARD_INSECURE_PARAMETERS").is_none()
        && let Some(real) = std::env::home_dir()
    {
        command.env("SEALYARD_INSECURE_PARAMETERS", real.join(".cache/sealyard/insecure-parameters"));
    }
    command.env("HOME", home).env("NO_COLOR", "1").current_dir(home);
}

/// Runs a command to its end within `bound`; a longer one is killed and fails the test.
pub fn run_within(command: &mut Command, bound: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let (done, ended) = channel();
    let id = child.id();
    let waiter = std::thread::spawn(move || {
        let status = child.wait();
        let _ = done.send(());
        status
    });
    if ended.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("{command:?} took longer than {bound:?}; stderr: {}", text(&stderr.join().expect("reader")));
    }
    Output {
        status: waiter.join().expect("waiter").expect("the child was ours to wait for"),
        stdout: stdout.join().expect("reader"),
        stderr: stderr.join().expect("reader"),
    }
}

/// Runs and expects success; gives stdout.
pub fn ok(command: &mut Command) -> String {
    let output = run_within(command, COMMAND_MAX);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Runs and expects this exit code; gives stderr, which must be one line.
pub fn refused(command: &mut Command, code: i32) -> String {
    let output = run_within(command, COMMAND_MAX);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors.len(), 1, "{command:?} must say one clear line: {stderr}");
    errors[0].to_owned()
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Processes that do a task (`pc1`) below `home`: each works in its call's directory and is told the task. What one of them
/// has just forked still looks like it, and is none.
pub fn executors(home: &Path, task: &str) -> Vec<u32> {
    let ours = |process: &PathBuf| {
        let within = std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(home));
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        within && line.split(|byte| *byte == 0).any(|word| word == task.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let found: Vec<u32> =
        processes.filter(ours).filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect();
    let is_forked = |process: &u32| parent_of(*process).is_some_and(|parent| found.contains(&parent));
    found.iter().copied().filter(|process| !is_forked(process)).collect()
}

/// Waits for the one executor of a task and has it stand still: what is looked at beside it is not over meanwhile. One that was
/// started ahead has its call's name a little before it has said that it begins, which it must do within a second.
pub fn hold(home: &Path, task: &str, bound: Duration) -> u32 {
    let has_begun = |process: &u32| {
        let output = std::fs::read_link(format!("/proc/{process}/fd/1"));
        output.is_ok_and(|file| file.ends_with("log"))
    };
    let at_work = || executors(home, task).into_iter().filter(has_begun).collect::<Vec<_>>();
    let executor = ask_until(&format!("{task} at work"), bound, at_work, |found| found.len() == 1)[0];
    signal(executor, "-STOP");
    executor
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the program's name in parentheses: its state, then its parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal, such as `-STOP`, to a process.
pub fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill {signal} {process}: {sent}");
}

/// When a process began, and the time that all its threads have had on processors, those that have ended among them; both in
/// ticks of the clock, of which there are 100 a second.
pub fn life(process: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Fields 22, 14 and 15 of proc_pid_stat(5), of which the third comes first.
    let [began, user, system] = [19, 11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number"));
    (began, user + system)
}

/// Ends a process as a power cut does: nothing of it runs on to say goodbye.
pub fn kill(daemon: &mut Daemon) {
    signal(daemon.id(), "-9");
    assert_eq!(daemon.end(), None, "killed, not exited");
}

/// What a command prints as JSON.
pub fn json(home: &Path, args: &[&str]) -> serde_json::Value {
    let text = ok(sealyard(home).args(args).arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
}

/// The bytes of a piece of sector 1, which must be there without unsealing.
pub fn read_piece(home: &Path, offset: u64, size: u64) -> Vec<u8> {
    let (offset, size) = (offset.to_string(), size.to_string());
    let args =
        ["sectors", "read-piece", "1", "--no-unseal", "--output", "-", "--offset", &offset, "--size", &size];
    let output = run_within(sealyard(home).args(args), COMMAND_MAX);
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

/// A process that runs until it is dropped, its output line by line.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    name: String,
    home: Option<PathBuf>,
}

impl Daemon {
    /// Starts it.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let home = command.get_current_dir().map(Path::to_owned);
        home.iter().for_each(|home| parameters::recall(home));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (sender, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("stdout is piped")),
            Box::new(child.stderr.take().expect("stderr is piped")),
        ];
        for pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new(), name: name.to_owned(), home }
    }

    /// Waits until a line contains `needle`, and gives that line.
    pub fn expect(&mut self, needle: &str) -> String {
        self.expect_one_of(&[needle], COMMAND_MAX)
    }

    /// Waits until a line contains one of `needles`, and gives that line.
    pub fn expect_one_of(&mut self, needles: &[&str], bound: Duration) -> String {
        let wanted = |line: &String| needles.iter().any(|needle| line.contains(needle));
        if let Some(line) = self.seen.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(bound.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(_) => panic!("{} never said {needles:?}; it said:\n{}", self.name, self.seen.join("\n")),
            }
        }
    }

    /// Waits until a line contains `needle`. One that is to die may come there before it says so.
    pub fn expect_or_end(&mut self, needle: &str) {
        let came = || self.has_ended() || self.said().contains(needle);
        ask_until(&format!("{needle:?} or the end"), COMMAND_MAX, came, |came| *came);
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything said so far.
    pub fn said(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Waits for the end and gives the exit code.
    pub fn end(&mut self) -> Option<i32> {
        // Its pipes close when it ends, which ends the lines.
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(COMMAND_MAX.saturating_sub(begun.elapsed())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} does not end:\n{}", self.name, self.seen.join("\n"))
                }
            }
        }
        self.child.wait().expect("the child is ours").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let last: Vec<&str> = said.lines().rev().take(LAST_LINES).collect();
            eprintln!("-- {} said last:", self.name);
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        // One that has ended and was waited for has no process id any more; it may be somebody else's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
            // It leaves its executors to a next life, which there will not be.
            self.home.iter().for_each(|home| end_orphans(home));
        }
    }
}

/// Kills executors below `home` whose worker has ended. Workers run in `home` itself.
fn end_orphans(home: &Path) {
    let Ok(home) = home.canonicalize() else { return };
    let cwd = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("cwd")).ok();
    let orphan = |pid: &String| {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1));
        cwd(pid).is_some_and(|dir| dir.starts_with(&home) && dir.iter().any(|part| part == "calls"))
            && parent.is_some_and(|parent| cwd(parent).is_none_or(|dir| !dir.starts_with(&home)))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let orphans = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(orphan);
    for pid in orphans {
        // It may have ended meanwhile.
        let _ = Command::new("kill").args(["-9", &pid]).output();
    }
}

/// Every file below `dir` with its bytes: what a refused command must not have changed.
pub fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                files.push((path.clone(), Vec::new()));
                open.push(path);
            } else {
                files.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
            }
        }
    }
    files.sort();
    files
}

/// The longest pause between two questions.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Asks again until `done` likes the answer: without a pause at first, later with pauses, so that what is waited for has the
/// CPUs to itself.
pub fn ask_until<T>(what: &str, bound: Duration, mut ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if done(&answer) {
            return answer;
        }
        let waited = begun.elapsed();
        assert!(waited < bound, "{what} did not come about within {bound:?}");
        std::thread::park_timeout((waited / 20).min(PAUSE_MAX));
    }
}
