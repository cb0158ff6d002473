//! Manager, workers and executors are killed, paused and ended at random while sectors are sealed, with real processes and
//! real proofs; at the end every sector got where it was to get, every task has one accepted result, and nothing is left.
//!
//! `SEALYARD_CHAOS_SECONDS` (60) and `SEALYARD_CHAOS_SEED` (1) say how long and which schedule; the seed decides what is
//! done, the machine when it comes about. From five minutes on every second sector has 8 MiB. The long run is
//! `SEALYARD_CHAOS_SECONDS=1800 cargo test --workspace --test chaos -- --nocapture`.
#![expect(clippy::print_stdout, reason = "the histogram is what the long run is for")]

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use system::at_work::{self, Executor, slow_program};
use system::dice::Dice;
use system::hosts::Hosts;
use system::{COMMAND_MAX, Daemon, ask_until, ok, run_within, sealyard, text};

/// What is left after the last blow takes a few seconds a sector; a loaded machine gets more.
const HEALING_MAX: Duration = Duration::from_secs(600);
/// A blow waits so long until its moment comes; then another is tried.
const MOMENT_MAX: Duration = Duration::from_secs(4);
/// Sectors under way at a time.
const FLIGHT: usize = 4;
/// A run of so many seconds has larger sectors, too.
const LONG: u64 = 300;

/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

const TASKS: [&str; 4] = ["ap", "pc1", "pc2", "c1"];
const PROCESSES: [&str; 3] = ["manager", "worker", "executor"];
const NAMES: [&str; 3] = ["manager", "A", "B"];
const WORKERS: [&str; 2] = ["A", "B"];

/// The parts of a sector that lie on a worker.
const KINDS: [&str; 3] = ["unsealed", "sealed", "cache"];

/// One of the three processes that are started by hand.
#[derive(Default)]
struct Seat {
    daemon: Option<Daemon>,
    /// When it is started again.
    due: Option<Instant>,
    /// When it goes on.
    stopped: Option<Instant>,
}

struct Yard {
    home: PathBuf,
    /// Where the manager and the workers are, if this machine permits; else all are on one host.
    hosts: Option<Hosts>,
    /// When the wire between them is joined again.
    cut: Option<Instant>,
    cuts: usize,
    /// Whether every second sector is larger.
    mixed: bool,
    addresses: [String; 3],
    program: String,
    seats: BTreeMap<&'static str, Seat>,
    /// Executors that were stopped, and when they go on.
    stopped: Vec<(u32, Instant)>,
    kills: BTreeMap<(&'static str, &'static str), usize>,
    pauses: usize,
    ends: usize,
    restarted_by_themselves: usize,
    pledged: usize,
    /// Sectors that have got where they were to get.
    at_rest: BTreeSet<u64>,
}

impl Yard {
    fn new(home: &Path, mixed: bool) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        // Ports that are none of those which the system gives to clients.
        let first = 10_000 + u16::try_from(std::process::id() % 19_000).expect("small");
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let mut ports = (first..).filter(free);
        let hosts = Hosts::new();
        let host = |of: usize| hosts.as_ref().map_or("127.0.0.1", |_| ["10.77.0.1", "10.77.0.2"][of.min(1)]);
        let addresses = std::array::from_fn(|at| format!("{}:{}", host(at), ports.next().expect("a port")));
        let seats = NAMES.into_iter().map(|name| (name, Seat::default())).collect();
        let program = slow_program(home);
        let kills =
            PROCESSES.into_iter().flat_map(|process| TASKS.map(|task| ((process, task), 0))).collect();
        let mut yard = Self {
            home: home.to_owned(),
            hosts,
            cut: None,
            cuts: 0,
            mixed,
            addresses,
            program,
            seats,
            stopped: Vec::new(),
            kills,
            pauses: 0,
            ends: 0,
            restarted_by_themselves: 0,
            pledged: 0,
            at_rest: BTreeSet::new(),
        };
        NAMES.into_iter().for_each(|name| yard.start(name));
        yard
    }

    fn start(&mut self, name: &'static str) {
        let mut command = self.command(usize::from(name != "manager"));
        if name == "manager" {
            command.args(["run", "--listen", &self.addresses[0]]);
        } else {
            let (address, tasks): (_, &[&str]) = match name {
                "A" => (&self.addresses[1], &["--addpiece", "--precommit1"]),
                _ => (&self.addresses[2], &["--precommit2"]),
            };
            command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]);
            command.args(tasks).args(
                TASKS
                    .into_iter()
                    .flat_map(|task| ["--executor".to_owned(), format!("{task}={}", self.program)]),
            );
        }
        let daemon = Some(Daemon::start(name, &mut command));
        self.seats.insert(name, Seat { daemon, ..Seat::default() });
    }

    /// The program, on one of the hosts.
    fn command(&self, host: usize) -> Command {
        self.hosts.as_ref().map_or_else(|| sealyard(&self.home), |hosts| hosts.on(host, &self.home))
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(self.command(0).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    fn pid(&self, name: &str) -> Option<u32> {
        let seat = self.seats.get(name).filter(|seat| seat.stopped.is_none())?;
        seat.daemon.as_ref().map(Daemon::id)
    }

    /// What runs now. No sector has two at a time, whoever was killed.
    fn executors(&self) -> Vec<Executor> {
        let found = at_work::look(&self.home, &WORKERS, &TASKS);
        let mut sectors = BTreeSet::new();
        if found.iter().all(|executor| sectors.insert(executor.sector)) {
            return found;
        }
        // One may have ended and the next begun while we looked.
        let again = at_work::look(&self.home, &WORKERS, &TASKS);
        let mut sectors = BTreeSet::new();
        for executor in &again {
            assert!(sectors.insert(executor.sector), "two executors of one sector: {again:?}");
        }
        again
    }

    /// What an operator and his service manager do: processes that ended are started, failed steps tried again, sectors
    /// pledged.
    fn look_after(&mut self, pledge: bool) {
        let now = Instant::now();
        if self.cut.is_some_and(|until| until <= now) {
            self.cut = None;
            self.hosts.iter().for_each(|hosts| hosts.set_wire(true));
        }
        self.stopped.retain(|(pid, until)| {
            let goes_on = *until <= now;
            if goes_on {
                signal(*pid, "-CONT");
            }
            !goes_on
        });
        for name in NAMES {
            let seat = self.seats.get_mut(name).expect("all three");
            if seat.stopped.is_some_and(|until| until <= now) {
                seat.stopped = None;
                seat.daemon.iter().for_each(|daemon| signal(daemon.id(), "-CONT"));
            }
            if seat.daemon.as_mut().is_some_and(Daemon::has_ended) {
                seat.daemon = None;
                self.restarted_by_themselves += usize::from(seat.due.is_none());
                seat.due.get_or_insert(now);
            }
            if seat.daemon.is_none() && seat.due.is_none_or(|due| due <= now) {
                self.start(name);
            }
        }
        if self.pid("manager").is_none() {
            return;
        }
        let Some(sectors) = self.ask(&["sectors", "list"]) else { return };
        let sectors = sectors.as_array().cloned().unwrap_or_default();
        self.pledged = self.pledged.max(sectors.len());
        let open = self.open(&sectors).len();
        for sector in sectors.iter().filter(|sector| has_failed(sector)) {
            let number = sector["sector"]["number"].to_string();
            run_within(self.command(0).args(["sectors", "retry", &number]), COMMAND_MAX);
        }
        if pledge && open < FLIGHT {
            let size = if self.mixed && sectors.len() % 2 == 1 { "8MiB" } else { "2KiB" };
            let pledge = ["sectors", "pledge", "--until", "c1", "--sector-size", size];
            run_within(self.command(0).args(pledge), COMMAND_MAX);
        }
    }

    /// Those of the sectors that are on their way.
    fn open(&mut self, sectors: &[Value]) -> Vec<u64> {
        let numbers =
            sectors.iter().filter_map(|sector| Some((sector["sector"]["number"].as_u64()?, sector)));
        let mut open = Vec::new();
        for (number, sector) in numbers {
            if self.at_rest.contains(&number) {
                continue;
            }
            let rests = || {
                let status = self.ask(&["sectors", "status", &number.to_string()]);
                status.is_some_and(|status| status["stopped"] == true && status["c1_sha256"].is_string())
            };
            if sector["state"] == "Committing" && rests() {
                self.at_rest.insert(number);
            } else {
                open.push(number);
            }
        }
        open
    }

    /// `None`: the manager did not answer, or not in time to be understood.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let output = run_within(self.command(0).args(args).arg("--json"), COMMAND_MAX);
        if output.status.success() { serde_json::from_str(&text(&output.stdout)).ok() } else { None }
    }

    /// Kills one process in one step of a sector's life, if that moment comes.
    fn kill(&mut self, process: &'static str, task: &'static str, dice: &mut Dice) {
        let begun = Instant::now();
        while begun.elapsed() < MOMENT_MAX {
            let there: Vec<_> = self.executors().into_iter().filter(|found| found.task == task).collect();
            if there.is_empty() {
                // Those that are stopped are in the way of others.
                self.look_after(true);
                continue;
            }
            let victim = dice.one_of(&there).clone();
            let name = match process {
                "executor" => {
                    signal(victim.pid, "-9");
                    None
                }
                "worker" => Some(victim.worker),
                _ => Some("manager"),
            };
            if let Some(name) = name {
                let Some(pid) = self.pid(name) else { return };
                signal(pid, "-9");
                self.gone(name, dice);
            }
            *self.kills.get_mut(&(process, task)).expect("a cell") += 1;
            return;
        }
    }

    fn gone(&mut self, name: &'static str, dice: &mut Dice) {
        let seat = self.seats.get_mut(name).expect("all three");
        if let Some(mut daemon) = seat.daemon.take() {
            daemon.end();
        }
        seat.due = Some(Instant::now() + dice.millis(0, 1500));
    }

    /// Something else than a kill.
    fn disturb(&mut self, dice: &mut Dice) {
        let choices = if self.hosts.is_some() { 4 } else { 3 };
        match dice.below(choices) {
            3 if self.cut.is_none() => {
                self.hosts.iter().for_each(|hosts| hosts.set_wire(false));
                self.cut = Some(Instant::now() + dice.millis(200, 6000));
                self.cuts += 1;
            }
            0 => {
                let name = *dice.one_of(&NAMES);
                let Some(pid) = self.pid(name) else { return };
                signal(pid, "-STOP");
                let until = Instant::now() + dice.millis(200, 4000);
                self.seats.get_mut(name).expect("all three").stopped = Some(until);
                self.pauses += 1;
            }
            1 => {
                let running = self.executors();
                if running.is_empty() {
                    return;
                }
                let pid = dice.one_of(&running).pid;
                signal(pid, "-STOP");
                self.stopped.push((pid, Instant::now() + dice.millis(200, 4000)));
                self.pauses += 1;
            }
            _ => {
                let name = *dice.one_of(&NAMES);
                let Some(pid) = self.pid(name) else { return };
                signal(pid, "-TERM");
                self.gone(name, dice);
                self.ends += 1;
            }
        }
    }

    fn least_tried(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        let least = self.kills.values().min().copied().unwrap_or_default();
        let cells: Vec<_> =
            self.kills.iter().filter(|(_, count)| **count == least).map(|(cell, _)| *cell).collect();
        *dice.one_of(&cells)
    }

    /// Everything goes on, and every sector gets to Commit1.
    fn heal(&mut self) {
        self.cut = self.cut.map(|_| Instant::now());
        for (pid, _) in self.stopped.drain(..) {
            signal(pid, "-CONT");
        }
        for seat in self.seats.values_mut() {
            seat.stopped = seat.stopped.map(|_| Instant::now());
            seat.due = seat.due.map(|_| Instant::now());
        }
        let begun = Instant::now();
        loop {
            self.executors();
            self.look_after(false);
            let sectors = self.ask(&["sectors", "list"]).and_then(|list| list.as_array().cloned());
            let open = self.open(sectors.as_deref().unwrap_or_default());
            if sectors.is_some() && open.is_empty() {
                return;
            }
            assert!(begun.elapsed() < HEALING_MAX, "not sealed: {open:#?}\n{}", self.said());
        }
    }

    fn said(&mut self) -> String {
        let seats = self.seats.iter_mut();
        seats.filter_map(|(name, seat)| Some(format!("{name}: {}", seat.daemon.as_mut()?.said()))).collect()
    }

    /// Every sector is whole, every task has one accepted result, and nothing is left of what was begun. Gives the time that
    /// failed attempts ran (milliseconds), and the copies left by moves.
    fn check(&self) -> (u64, usize) {
        let home = self.home.as_path();
        let empty = |found: &Value| *found == Value::Array(Vec::new());
        ask_until("nothing waits or runs", HEALING_MAX, || self.json(&["sealing", "jobs"]), empty);
        let sectors = self.json(&["sectors", "list"]);
        let (mut lost_ms, mut copies) = (0, 0);
        for sector in sectors.as_array().expect("a list") {
            let number = sector["sector"]["number"].to_string();
            let status = self.json(&["sectors", "status", &number]);
            let rows = status["tasks"].as_array().expect("tasks");
            for task in ["seal/v0/addpiece", "seal/v0/precommit/1", "seal/v0/precommit/2", "seal/v0/commit/1"]
            {
                let of_task = rows.iter().filter(|row| row["task"] == task);
                let done = of_task.filter(|row| row["state"] == "done").count();
                assert_eq!(done, 1, "sector {number}: {task} has one accepted result: {rows:#?}");
            }
            for row in rows.iter().filter(|row| row["state"] == "failed") {
                let time = |key: &str| row[key].as_u64().unwrap_or_default();
                if time("started_ms") > 0 {
                    lost_ms += time("ended_ms").saturating_sub(time("started_ms"));
                }
            }
            // Every size has proofs of its own, in the order of the sizes.
            let size = if status["proof_type"].as_i64().map(|proof| proof % 5) == Some(1) {
                8 << 20
            } else {
                2 << 10
            };
            copies += self.copies_left(&number, size);
        }
        ask_until("nothing is locked", HEALING_MAX, || self.json(&["storage", "locks"]), empty);
        let promised = || {
            let paths = self.json(&["storage", "list"]);
            paths.as_array().expect("paths").iter().filter_map(|path| path["reserved"].as_u64()).sum::<u64>()
        };
        ask_until("no room is promised", HEALING_MAX, promised, |bytes| *bytes == 0);
        for worker in WORKERS {
            let calls = home.join(worker).join("calls");
            let left = || fs::read_dir(&calls).expect("calls").count();
            ask_until("no call's directory is left", HEALING_MAX, left, |left| *left == 0);
        }
        assert!(self.executors().is_empty(), "no executor is left");
        // What was half-fetched when its fetcher was killed is offered by the next scan, and goes with it.
        ok(self.command(0).args(["storage", "cleanup", "--really-do-it"]));
        self.nothing_foreign(&sectors);
        (lost_ms, copies)
    }

    /// The replica is whole, with its cache, where PreCommit2 was. How many copies are left besides: one that is moved is
    /// copied before it goes, and who is killed in between does not ask for its end again.
    fn copies_left(&self, number: &str, replica_bytes: u64) -> usize {
        let name = format!("s-t01000-{number}");
        let place = |worker: &str, kind: &str| self.home.join(worker).join(kind).join(&name);
        let bytes = fs::metadata(place("B", "sealed")).map(|found| found.len());
        assert_eq!(bytes.ok(), Some(replica_bytes), "sector {number}'s replica");
        assert!(place("B", "cache").is_dir(), "sector {number}'s cache");
        ["sealed", "cache"].into_iter().filter(|kind| place("A", kind).exists()).count()
    }

    /// No file that is of no sector, half-fetched ones included, but for what a cleanup has just removed.
    fn nothing_foreign(&self, sectors: &Value) {
        let numbers = sectors.as_array().expect("a list").iter();
        let known: BTreeSet<_> = numbers.map(|row| format!("s-t01000-{}", row["sector"]["number"])).collect();
        for (worker, kind) in WORKERS.into_iter().flat_map(|worker| KINDS.map(|kind| (worker, kind))) {
            let Ok(entries) = fs::read_dir(self.home.join(worker).join(kind)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_empty_dir =
                    || fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none());
                assert!(known.contains(&name) || is_empty_dir(), "{worker}/{kind}/{name} is left");
            }
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind, and nothing stopped.
        let daemons: Vec<_> =
            self.seats.values().filter_map(|seat| seat.daemon.as_ref()).map(Daemon::id).collect();
        let executors = at_work::look(&self.home, &WORKERS, &TASKS).into_iter().map(|executor| executor.pid);
        daemons.into_iter().chain(executors).for_each(|pid| signal(pid, "-9"));
    }
}

fn has_failed(sector: &Value) -> bool {
    sector["state"].as_str().is_some_and(|state| state.ends_with("Failed"))
}

fn signal(process: u32, signal: &str) {
    // It may be gone already.
    let _ = Command::new("kill").args([signal, &process.to_string()]).output();
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

#[test]
fn sectors_are_sealed_whatever_is_killed_paused_or_ended() {
    let seconds = from_environment("SEALYARD_CHAOS_SECONDS", 60);
    let seed = from_environment("SEALYARD_CHAOS_SEED", 1);
    println!("seed {seed}, {seconds} s");
    let mut dice = Dice(seed);
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let mut yard = Yard::new(&home, seconds >= LONG);
    let begun = Instant::now();
    let span = Duration::from_secs(seconds);
    // A slow machine gets up to four times as long to fill every cell.
    while begun.elapsed() < span || yard.kills.values().any(|count| *count == 0) && begun.elapsed() < span * 4
    {
        yard.look_after(true);
        match dice.below(3) {
            0 => yard.disturb(&mut dice),
            _ => {
                let (process, task) = yard.least_tried(&mut dice);
                yard.kill(process, task, &mut dice);
            }
        }
        // Some work is done between two blows.
        std::thread::park_timeout(dice.millis(100, 1200));
    }
    yard.heal();
    let (lost_ms, copies) = yard.check();

    let kills: usize = yard.kills.values().sum();
    println!("{:>9} {:>5} {:>5} {:>5} {:>5}", "kills in", TASKS[0], TASKS[1], TASKS[2], TASKS[3]);
    for process in PROCESSES {
        let row = TASKS.map(|task| format!("{:>5}", yard.kills[&(process, task)]));
        println!("{process:>9} {}", row.join(" "));
    }
    println!(
        "{kills} kills, {} pauses, {} cuts of the network{}, {} ended by SIGTERM, {} started again that ended by themselves; {} sectors sealed; \
         {:.2} task-seconds lost per kill; {copies} copies left where they were moved from",
        yard.pauses,
        yard.cuts,
        if yard.hosts.is_some() { "" } else { " (not permitted here)" },
        yard.ends,
        yard.restarted_by_themselves,
        yard.pledged,
        Duration::from_millis(lost_ms).as_secs_f64() / kills.max(1) as f64
    );
    assert!(yard.kills.values().all(|count| *count > 0), "a cell is empty: {:?}", yard.kills);
    let executors: usize = TASKS.iter().map(|task| yard.kills[&("executor", *task)]).sum();
    assert!(seconds < 1800 || executors >= 100, "{executors} executors were killed");
}
