//! A manager and two workers in turmoil: each is killed, paused, ended, cut off and started again.

mod ending;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::system::at_work::{self, Executor};
use crate::system::dice::Dice;
use crate::system::hosts::Hosts;
use crate::system::{COMMAND_MAX, Daemon, ask_until, ok, run_within, sealyard, text};

/// What is left after the last blow takes a few seconds a sector; a loaded machine gets more.
const HEALING_MAX: Duration = Duration::from_secs(600);
/// A blow waits so long until its moment comes; then another is tried.
const MOMENT_MAX: Duration = Duration::from_secs(4);
/// So many executors are killed for every worker, and for every manager.
const EXECUTORS_TIMES: usize = 3;
/// Work that takes milliseconds is met before and after it: what was begun and what was made lies there then.
const SLOW: &str = "executor.begun:200,executor.worked:200";
/// Sectors under way at a time.
const FLIGHT: usize = 4;
/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

pub const TASKS: [&str; 4] = ["ap", "pc1", "pc2", "c1"];
/// A task that only the one sector gets to which goes all the way.
const COMMIT2: &str = "c2";
/// Whatever may be met at work.
const WATCHED: [&str; 5] = [TASKS[0], TASKS[1], TASKS[2], TASKS[3], COMMIT2];
pub const PROCESSES: [&str; 3] = ["manager", "worker", "executor"];
const NAMES: [&str; 3] = ["manager", "A", "B"];
const WORKERS: [&str; 2] = ["A", "B"];

/// Where the sector lies at the end that goes all the way.
const STORE: &str = "store";

/// The parts of a sector that lie on a worker.
const KINDS: [&str; 3] = ["unsealed", "sealed", "cache"];

/// Who does not reach whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// The worker on this host nobody.
    Worker(usize),
    /// Both workers nobody.
    Manager,
    /// The workers each other.
    Between,
}

impl Cut {
    const ALL: [Self; 4] = [Self::Worker(1), Self::Worker(2), Self::Manager, Self::Between];

    fn set(self, hosts: &Hosts, whole: bool) {
        match self {
            Self::Worker(host) => hosts.set_wire(host, whole),
            Self::Manager => (1..NAMES.len()).for_each(|host| hosts.set_wire(host, whole)),
            Self::Between => hosts.set_between(whole),
        }
    }
}

/// One of the three processes that are started by hand.
#[derive(Default)]
struct Seat {
    daemon: Option<Daemon>,
    /// When it is started again.
    due: Option<Instant>,
    /// When it goes on.
    stopped: Option<Instant>,
}

pub struct Yard {
    home: PathBuf,
    /// Where the manager and each of the workers are, if this machine permits; else all are on one host.
    pub hosts: Option<Hosts>,
    /// Who is cut off, and when the wires are joined again.
    cut: Option<(Cut, Instant)>,
    pub cuts: BTreeMap<Cut, usize>,
    /// Whether every second sector is larger.
    mixed: bool,
    addresses: [String; 3],
    seats: BTreeMap<&'static str, Seat>,
    /// Executors that were stopped, and when they go on.
    stopped: Vec<(u32, Instant)>,
    pub kills: BTreeMap<(&'static str, &'static str), usize>,
    pub pauses: usize,
    pub ends: usize,
    pub restarted_by_themselves: usize,
    pub pledged: usize,
    /// The sector that goes all the way, and who was killed how often in its Commit2.
    whole: Option<u64>,
    pub commit2_kills: BTreeMap<&'static str, usize>,
    /// Sectors that have got where they were to get.
    at_rest: BTreeSet<u64>,
}

impl Yard {
    pub fn new(home: &Path, mixed: bool) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        // Ports that are none of those which the system gives to clients.
        let first = 10_000 + u16::try_from(std::process::id() % 19_000).expect("small");
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let mut ports = (first..).filter(free);
        let hosts = Hosts::new(NAMES.len());
        let host = |of: usize| {
            hosts.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |_| format!("10.77.0.{}", of + 1))
        };
        let addresses = std::array::from_fn(|at| format!("{}:{}", host(at), ports.next().expect("a port")));
        let seats = NAMES.into_iter().map(|name| (name, Seat::default())).collect();
        let kills =
            PROCESSES.into_iter().flat_map(|process| TASKS.map(|task| ((process, task), 0))).collect();
        let mut yard = Self {
            home: home.to_owned(),
            hosts,
            cut: None,
            cuts: Cut::ALL.map(|cut| (cut, 0)).into(),
            mixed,
            addresses,
            seats,
            stopped: Vec::new(),
            kills,
            pauses: 0,
            ends: 0,
            restarted_by_themselves: 0,
            pledged: 0,
            whole: None,
            commit2_kills: PROCESSES.map(|process| (process, 0)).into(),
            at_rest: BTreeSet::new(),
        };
        NAMES.into_iter().for_each(|name| yard.start(name));
        WORKERS.into_iter().for_each(|name| yard.slow_down(name));
        yard
    }

    /// Lets a worker's executors dwell, from its second start on: its first one makes its repo.
    fn slow_down(&mut self, name: &'static str) {
        let config = self.home.join(name).join("config.toml");
        ask_until("the repo is made", COMMAND_MAX, || config.exists(), |there| *there);
        let of_task = |task| format!("[executor.{task}.env]\nSEALYARD_SLOW_AT = {SLOW:?}\n");
        fs::write(config, TASKS.map(of_task).concat()).expect("config.toml");
        if let Some(pid) = self.pid(name) {
            signal(pid, "-9");
        }
        self.seats.remove(name).and_then(|mut seat| seat.daemon.take()).expect("it was started").end();
        self.start(name);
    }

    /// One sector that goes all the way, with Commit2, to a path that stores.
    pub fn pledge_whole(&mut self) {
        let attach = ["storage", "attach", "--init", "--store", "--worker-repo", "B", STORE];
        // The processes have just been started.
        let taken = || run_within(self.command(2).args(attach), COMMAND_MAX).status.success();
        ask_until("the path is attached", COMMAND_MAX, taken, |taken| *taken);
        let known = |list: &Option<Value>| {
            list.as_ref().and_then(Value::as_array).is_some_and(|paths| paths.len() == 3)
        };
        ask_until("the path is known", COMMAND_MAX, || self.ask(&["storage", "list"]), known);
        ok(self.command(0).args(["sectors", "pledge"]));
        let sectors = self.json(&["sectors", "list"]);
        self.whole = sectors[0]["sector"]["number"].as_u64();
        assert!(self.whole.is_some(), "{sectors:#}");
    }

    /// Each of the processes is killed once while that sector's Commit2 is met at work: those first that it outlives.
    pub fn kill_in_commit2(&mut self, dice: &mut Dice) {
        let spared = |process: &&'static str| self.commit2_kills[process] == 0;
        let Some(process) = PROCESSES.into_iter().find(spared).filter(|_| self.whole.is_some()) else {
            return;
        };
        if let Some(met) = self.executors().into_iter().find(|met| met.task == COMMIT2)
            && self.kill_at(process, &met, dice)
        {
            *self.commit2_kills.get_mut(process).expect("one of the three") += 1;
        }
    }

    fn start(&mut self, name: &'static str) {
        let host = NAMES.iter().position(|known| *known == name).expect("one of the three");
        let mut command = self.command(host);
        if name == "manager" {
            command.args(["run", "--listen", &self.addresses[0]]);
        } else {
            let (address, tasks): (_, &[&str]) = match name {
                "A" => (&self.addresses[1], &["--addpiece", "--precommit1"]),
                _ => (&self.addresses[2], &["--precommit2", "--commit"]),
            };
            command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]);
            command.args(tasks);
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

    /// What runs now. No sector has two at a time, whoever was killed: one may have ended and the next begun while we looked,
    /// but two that were both met in each of two looks were there side by side.
    fn executors(&self) -> Vec<Executor> {
        let look = || at_work::look(&self.home, &WORKERS, &WATCHED);
        let (found, mut twins) = (look(), Vec::new());
        for (at, one) in found.iter().enumerate() {
            twins.extend(
                found[at + 1..].iter().filter(|other| other.sector == one.sector).map(|other| (one, other)),
            );
        }
        if twins.is_empty() {
            return found;
        }
        let again = look();
        let is_there = |one: &Executor| again.iter().any(|found| found.pid == one.pid);
        for (one, other) in twins {
            let both = is_there(one) && is_there(other);
            assert!(
                !both,
                "two executors of one sector: {one:?} and {other:?}\n{}",
                told(&[one.pid, other.pid])
            );
        }
        again
    }

    /// What an operator and his service manager do: processes that ended are started, failed steps tried again, sectors
    /// pledged.
    pub fn look_after(&mut self, pledge: bool) {
        let now = Instant::now();
        if let (Some((cut, until)), Some(hosts)) = (self.cut, &self.hosts)
            && until <= now
        {
            cut.set(hosts, true);
            self.cut = None;
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
                if let Some(daemon) = &seat.daemon {
                    signal(daemon.id(), "-CONT");
                }
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
            let is_done = if self.whole == Some(number) {
                sector["state"] == "Proving"
            } else {
                sector["state"] == "Committing" && rests()
            };
            if is_done {
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
    pub fn kill(&mut self, process: &'static str, task: &'static str, dice: &mut Dice) {
        let begun = Instant::now();
        while begun.elapsed() < MOMENT_MAX {
            let there: Vec<_> = self.executors().into_iter().filter(|found| found.task == task).collect();
            if there.is_empty() {
                // Those that are stopped are in the way of others.
                self.look_after(true);
                continue;
            }
            let victim = dice.one_of(&there).clone();
            if !self.kill_at(process, &victim, dice) {
                continue;
            }
            *self.kills.get_mut(&(process, task)).expect("a cell") += 1;
            return;
        }
    }

    /// Kills this executor, its worker or the manager. `false`: it may have ended meanwhile, or is away or stopped.
    fn kill_at(&mut self, process: &'static str, victim: &Executor, dice: &mut Dice) -> bool {
        let name = match process {
            "executor" => None,
            "worker" => Some(victim.worker),
            _ => Some("manager"),
        };
        let pid = name.map_or(Some(victim.pid), |name| self.pid(name));
        let killed = pid.is_some_and(|pid| signal(pid, "-9"));
        if let Some(name) = name.filter(|_| killed) {
            self.gone(name, dice);
        }
        killed
    }

    fn gone(&mut self, name: &'static str, dice: &mut Dice) {
        let seat = self.seats.get_mut(name).expect("all three");
        if let Some(mut daemon) = seat.daemon.take() {
            daemon.end();
        }
        seat.due = Some(Instant::now() + dice.millis(0, 1500));
    }

    /// Something else than a kill.
    pub fn disturb(&mut self, dice: &mut Dice) {
        let choices = if self.hosts.is_some() { 4 } else { 3 };
        match dice.below(choices) {
            3 if self.cut.is_none() => {
                let cut = *dice.one_of(&Cut::ALL);
                self.hosts.iter().for_each(|hosts| cut.set(hosts, false));
                self.cut = Some((cut, Instant::now() + dice.millis(200, 6000)));
                *self.cuts.get_mut(&cut).expect("all are there") += 1;
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

    pub fn least_tried(&self, dice: &mut Dice) -> (&'static str, &'static str) {
        // Executors are killed most often in life, too.
        let tried = |(process, _): &(&str, &str), count: &usize| {
            if *process == "executor" { *count / EXECUTORS_TIMES } else { *count }
        };
        let least = self.kills.iter().map(|(cell, count)| tried(cell, count)).min().unwrap_or_default();
        let cells: Vec<_> = self
            .kills
            .iter()
            .filter(|(cell, count)| tried(cell, count) == least)
            .map(|(cell, _)| *cell)
            .collect();
        *dice.one_of(&cells)
    }

    /// Everything goes on, and every sector gets to Commit1.
    pub fn heal(&mut self) {
        self.cut = self.cut.map(|(cut, _)| (cut, Instant::now()));
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
}

impl Drop for Yard {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind, and nothing stopped.
        let daemons: Vec<_> =
            self.seats.values().filter_map(|seat| seat.daemon.as_ref()).map(Daemon::id).collect();
        let executors =
            at_work::look(&self.home, &WORKERS, &WATCHED).into_iter().map(|executor| executor.pid);
        for pid in daemons.into_iter().chain(executors) {
            signal(pid, "-9");
        }
    }
}

fn has_failed(sector: &Value) -> bool {
    sector["state"].as_str().is_some_and(|state| state.ends_with("Failed"))
}

/// What the system says of these processes.
fn told(processes: &[u32]) -> String {
    let list: Vec<String> = processes.iter().map(u32::to_string).collect();
    let asked = ["-o", "pid,ppid,stat,etime,lstart,args", "-p", &list.join(",")];
    Command::new("ps").args(asked).output().map(|output| text(&output.stdout)).unwrap_or_default()
}

/// Whether there was such a process.
fn signal(process: u32, signal: &str) -> bool {
    let output = Command::new("kill").args([signal, &process.to_string()]).output();
    output.is_ok_and(|output| output.status.success())
}
