//! kill -9 of the sender, the receiver and the index at random points of resumed moves, with real processes.
//!
//! This program is its own three peers: with a role in its arguments it is one of them, else it kills them. Half of the
//! kills come at random bytes, half as soon as the receiver's disk shows a step after the last byte; every step is met.
//!
//! - At each kill a copy is whole, byte for byte. Where the index lives on, it names a whole copy at that moment; an index
//!   that was killed has forgotten everything, and names one again when the nodes have told it.
//! - What a receiver's journal lists is never sent again: between two kills no more than one block per connection comes that
//!   is not in it, nothing of that for a kill of the index, and when a move ends nothing at all. What came to a receiver
//!   between the last question and its death is not counted.
//!
//! `cargo test -p stores --test kill` kills 20 times while a cache directory of 256 MiB moves to and fro;
//! `cargo test --release -p stores --test kill -- --points 200 --mib 8192` is the long one.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a test with a main of its own")]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod index;
mod node;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use disk::{BLOCK, Files, Phase};

/// A move that takes longer is stuck.
const MOVE_MAX: Duration = Duration::from_secs(600);
/// A process that was killed is back, and what it has is declared, within this time.
const DECLARED_MAX: Duration = Duration::from_secs(120);
/// Between two questions to a receiver; its disk is looked at all the time.
const ASKED_EVERY: Duration = Duration::from_millis(2);
/// What follows the last byte of a move, in order.
const STEPS: [Phase; 4] = [Phase::Arrived, Phase::Placed, Phase::Declared, Phase::Deleted];
/// Moves beyond those that the kills need, until each step was met.
const MORE_MOVES: u64 = 60;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = args.iter().map(String::as_str).collect();
    match text[..] {
        ["index", port] => return index::serve(port),
        ["node", name, dir, port, index] => return node::serve(name, Path::new(dir), port, index),
        _ => {}
    }
    if text.contains(&"--list") {
        return println!("moves_survive_kills: test");
    }
    let number = |name: &str| {
        let at = text.iter().position(|arg| *arg == name)?;
        text.get(at + 1)?.parse::<u64>().ok()
    };
    let points = number("--points").unwrap_or(20);
    let seed = number("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}; give it with --seed to kill in the same order");
    Scene::new(number("--mib").unwrap_or(256), seed).play(points);
}

/// A process of ours; killed when dropped.
struct Process {
    child: Child,
    args: Vec<String>,
}

impl Process {
    fn start(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { child: spawn(&args), args }
    }

    fn kill(&mut self) {
        // SIGKILL, by the standard library's word.
        self.child.kill().expect("it was ours to kill");
        self.child.wait().expect("it has ended");
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn start_again(&mut self) {
        self.child = spawn(&self.args);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[String]) -> Child {
    let own = std::env::current_exe().expect("this program");
    Command::new(own).args(args).stdin(Stdio::null()).spawn().expect("it starts")
}

/// When to kill next.
#[derive(Clone, Copy)]
enum Aim {
    /// When so many bytes have come since the move began.
    Bytes(u64),
    /// When the receiver's disk shows this.
    Step(Phase),
}

/// What a receiver had when it was last looked at while nothing came.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Received by this life of it.
    bytes: u64,
    /// Of the directory, never to be sent again.
    noted: u64,
}

/// Three processes, and a directory that moves between two of them.
struct Scene {
    _home: tempfile::TempDir,
    dirs: [PathBuf; 2],
    ports: [u16; 2],
    index: Process,
    nodes: [Process; 2],
    files: Files,
    /// Of the present receiver, and since then: bytes of its life, and connections.
    mark: Mark,
    bytes: u64,
    streams: u64,
    random: u64,
    port_of_index: String,
    /// How often the index, a receiver and a sender were killed in which phase.
    killed: BTreeMap<(usize, Phase), u64>,
    /// The most bytes that were sent again after one kill.
    worst: u64,
}

impl Scene {
    fn new(mib: u64, seed: u64) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let dirs = ["a", "b"].map(|name| home.path().join(name));
        // Bound for a moment to find ports that are free; each process binds its own again after every kill.
        let listeners = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = listeners.each_ref().map(|one| one.local_addr().expect("an address").port());
        drop(listeners);
        let files = Files::make(&dirs[0], mib);
        let index_port = ports[2].to_string();
        let index = Process::start(&["index", &index_port]);
        let node = |name: &str, at: usize| {
            let dir = dirs[at].to_str().expect("UTF-8");
            Process::start(&["node", name, dir, &ports[at].to_string(), &index_port])
        };
        let nodes = [node("a", 0), node("b", 1)];
        let ports = [ports[0], ports[1]];
        Self {
            _home: home,
            dirs,
            ports,
            index,
            nodes,
            files,
            mark: Mark::default(),
            bytes: 0,
            streams: 0,
            random: seed | 1,
            port_of_index: index_port,
            killed: BTreeMap::new(),
            worst: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn play(&mut self, points: u64) {
        let began = Instant::now();
        let (mut killed, mut moves) = (0, 0_u64);
        while killed < points || STEPS.iter().any(|step| self.killed_in(*step) == 0) {
            assert!(moves < points + MORE_MOVES, "no kill met one of {STEPS:?}: {:?}", self.killed);
            let to = if moves.is_multiple_of(2) { 1 } else { 0 };
            killed += self.one_move(to, points.saturating_sub(killed).max(1));
            moves += 1;
            println!("{killed} kills in {moves} moves so far");
        }
        for phase in [&[Phase::Arriving][..], &STEPS, &[Phase::Done]].concat() {
            let [index, receiver, sender] =
                [0, 1, 2].map(|which| self.killed.get(&(which, phase)).copied().unwrap_or_default());
            println!(
                "killed while {phase:?}: the index {index} times, the receiver {receiver}, the sender {sender}"
            );
        }
        println!(
            "{killed} kills in {moves} moves of {} MiB, {:.0} s; at most {} KiB sent again after one: ok",
            self.files.total() >> 20,
            began.elapsed().as_secs_f64(),
            self.worst >> 10
        );
    }

    fn killed_in(&self, wanted: Phase) -> u64 {
        self.killed.iter().filter(|((_, phase), _)| *phase == wanted).map(|(_, times)| times).sum()
    }

    /// A random byte not far from `bytes`, or the step that was met least.
    fn aim(&mut self, bytes: u64) -> Aim {
        match self.random(2) {
            0 => Aim::Bytes(bytes + self.random(self.files.total() / 3)),
            _ => Aim::Step(*STEPS.iter().min_by_key(|step| self.killed_in(**step)).expect("there are some")),
        }
    }

    /// Moves the directory to the node `to`, killing at most `kills_max` times on the way. Returns how often.
    fn one_move(&mut self, to: usize, kills_max: u64) -> u64 {
        let began = Instant::now();
        let planned = (1 + self.random(5)).min(kills_max);
        let mut kills = 0;
        let mut sent = 0;
        let mut aim = self.aim(0);
        let mut asked: Option<Instant> = None;
        // What is left of an earlier move in the other direction is nothing of this one.
        self.mark = Mark { bytes: self.idle(to).bytes, noted: 0 };
        while !self.is_at(to) {
            assert!(began.elapsed() < MOVE_MAX, "a move does not end; {kills} kills so far");
            let phase = self.files.phase(&self.dirs[1 - to], &self.dirs[to]);
            let now = match aim {
                Aim::Bytes(bytes) => sent + self.bytes - self.mark.bytes >= bytes,
                Aim::Step(step) => phase == step,
            };
            if now && kills < planned {
                sent += self.kill_one(to);
                kills += 1;
                aim = self.aim(sent + self.bytes - self.mark.bytes);
            } else if asked.is_none_or(|asked| asked.elapsed() >= ASKED_EVERY) {
                self.ask(to, "/move");
                asked = Some(Instant::now());
            }
        }
        self.settle(to, false);
        kills
    }

    fn ask(&mut self, to: usize, what: &str) -> Option<node::State> {
        let state = node::ask(self.ports[to], what)?;
        (self.bytes, self.streams) = (state.bytes, state.streams);
        Some(state)
    }

    /// Waits until nothing comes to this node.
    fn idle(&mut self, to: usize) -> node::State {
        let began = Instant::now();
        loop {
            match self.ask(to, "/state") {
                Some(state) if !state.runs => return state,
                _ => assert!(began.elapsed() < MOVE_MAX, "a fetch does not end"),
            }
            std::thread::yield_now();
        }
    }

    /// Compares what has come since the mark with what is noted, while nothing comes, and marks it. After a kill of a sender
    /// or receiver a block of each connection may be missing: it may have come whole and wait its turn at the journal. Returns what came.
    fn settle(&mut self, to: usize, killed: bool) -> u64 {
        if self.nodes[to].is_alive() {
            self.idle(to);
        }
        let (came, noted) = (self.bytes - self.mark.bytes, self.files.noted(&self.dirs[to]));
        assert!(noted >= self.mark.noted, "of {} bytes that were noted {noted} are left", self.mark.noted);
        let again = came.saturating_sub(noted - self.mark.noted);
        let most = if killed { self.streams * BLOCK } else { 0 };
        assert!(again <= most, "{again} bytes are to be sent again, or came again; {most} may at most");
        self.worst = self.worst.max(again);
        self.mark = Mark { bytes: self.bytes, noted };
        came
    }

    /// Kills one of the three and starts it again. Returns what had come since the mark, if that is a new one now.
    fn kill_one(&mut self, to: usize) -> u64 {
        let which = self.random(3) as usize;
        if which == 1 {
            self.ask(to, "/state");
        }
        self.process(which, to).kill();
        let phase = self.files.phase(&self.dirs[1 - to], &self.dirs[to]);
        *self.killed.entry((which, phase)).or_default() += 1;
        if which != 0 {
            self.expect_named();
        }
        let whole = self.files.expect_a_whole_copy(&self.dirs);
        // The mark stays after a kill of the index: that must not cost a byte.
        let came = if which == 0 { 0 } else { self.settle(to, true) };
        if which == 1 {
            (self.bytes, self.mark.bytes) = (0, 0);
        }
        self.process(which, to).start_again();
        self.expect_declared(whole);
        came
    }

    /// The index, the receiver or the sender.
    fn process(&mut self, which: usize, to: usize) -> &mut Process {
        match which {
            0 => &mut self.index,
            1 => &mut self.nodes[to],
            _ => &mut self.nodes[1 - to],
        }
    }

    /// The index names a whole copy, at this moment.
    fn expect_named(&self) {
        // The other one may be on its way out, or in: it is asked twice.
        let names = [(); 2].map(|()| {
            let holders = self.holders();
            (holders.iter().any(|at| self.files.is_whole(&self.dirs[*at])), holders)
        });
        assert!(names.iter().any(|(whole, _)| *whole), "the index names no whole copy: {names:?}");
    }

    /// Waits until the node `whole`, or another that is whole by then, is declared to hold the directory.
    fn expect_declared(&self, whole: usize) {
        let began = Instant::now();
        loop {
            let holders = self.holders();
            if holders.iter().any(|at| *at == whole || self.files.is_whole(&self.dirs[*at])) {
                return;
            }
            assert!(began.elapsed() < DECLARED_MAX, "no whole copy is declared, but {holders:?}");
            std::thread::yield_now();
        }
    }

    /// The nodes that the index names.
    fn holders(&self) -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let names = runtime.block_on(index::Far::new(&self.port_of_index).holders());
        names.iter().map(|name| usize::from(name == "b")).collect()
    }

    /// Whether the only copy lies there, whole.
    fn is_at(&self, to: usize) -> bool {
        self.files.is_gone(&self.dirs[1 - to]) && self.files.is_whole(&self.dirs[to])
    }
}
