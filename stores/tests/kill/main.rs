//! kill -9 of the sender, the receiver and the index at random points of resumed moves, with real processes.
//!
//! This program is its own three peers: with a role in its arguments it is one of them, else it kills them. At every
//! kill some copy must be whole, byte for byte, and once the killed peer is back a whole copy must be declared.
//!
//! `cargo test -p stores --test kill` kills 20 times while a cache directory of 256 MiB moves to and fro;
//! `cargo test --release -p stores --test kill -- --points 200 --mib 8192` is the long one.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a test with a main of its own")]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod index;
mod node;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use disk::Files;

/// A move that takes longer is stuck.
const MOVE_MAX: Duration = Duration::from_secs(600);
/// A process that was killed is back, and what it has is declared, within this time.
const DECLARED_MAX: Duration = Duration::from_secs(120);
/// What is sent again at most per connection and kill (bytes).
const BLOCK: u64 = 16 << 20;
const STREAMS: u64 = 3;

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

/// Three processes, and a directory that moves between two of them.
struct Scene {
    _home: tempfile::TempDir,
    dirs: [PathBuf; 2],
    ports: [u16; 2],
    index: Process,
    nodes: [Process; 2],
    files: Files,
    /// What each node has received so far.
    sent: [node::Sent; 2],
    random: u64,
    port_of_index: String,
    /// How often the index, a receiver and a sender were killed.
    killed: [u64; 3],
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
            sent: Default::default(),
            random: seed | 1,
            port_of_index: index_port,
            killed: [0; 3],
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
        let (mut killed, mut moves, mut worst) = (0, 0_u64, 0);
        while killed < points {
            let to = if moves.is_multiple_of(2) { 1 } else { 0 };
            let (kills, sent) = self.one_move(to, points - killed);
            let again = sent.saturating_sub(self.files.total());
            let most = kills * STREAMS * BLOCK;
            assert!(again <= most, "{again} bytes were sent again after {kills} kills; at most {most}");
            worst = worst.max(again.checked_div(kills).unwrap_or(0));
            killed += kills;
            moves += 1;
            println!("{killed} kills in {moves} moves so far");
        }
        let [index, receiver, sender] = self.killed;
        println!("killed: the index {index} times, the receiver {receiver}, the sender {sender}");
        println!(
            "{killed} kills in {moves} moves of {} MiB, {:.0} s; at most {} KiB sent again per kill: ok",
            self.files.total() >> 20,
            began.elapsed().as_secs_f64(),
            worst >> 10
        );
    }

    /// Moves the directory to the node `to`, killing at most `kills_max` times on the way. Returns kills and bytes sent.
    fn one_move(&mut self, to: usize, kills_max: u64) -> (u64, u64) {
        let began = Instant::now();
        let mut kills = 0;
        let earlier = self.sent[to].bytes();
        let planned = self.random(6).min(kills_max);
        let mut next = self.random(self.files.total());
        while !self.is_at(to) {
            assert!(began.elapsed() < MOVE_MAX, "a move does not end; {kills} kills so far");
            let answer = node::move_here(self.ports[to], &mut self.sent[to]);
            let sent = self.sent[to].bytes() - earlier;
            if kills < planned && (sent >= next || self.random(64) == 0) {
                self.kill_one(to);
                kills += 1;
                next = sent + self.random(self.files.total() / 3);
            }
            if answer == node::Answer::Away {
                std::thread::yield_now();
            }
        }
        // The receiver has nothing left to do once the source is gone.
        (kills, self.sent[to].bytes() - earlier)
    }

    fn kill_one(&mut self, to: usize) {
        let which = self.random(3);
        self.killed[which as usize] += 1;
        let process = match which {
            0 => &mut self.index,
            1 => &mut self.nodes[to],
            _ => &mut self.nodes[1 - to],
        };
        process.kill();
        let whole = self.files.expect_a_whole_copy(&self.dirs);
        let process = match which {
            0 => &mut self.index,
            1 => &mut self.nodes[to],
            _ => &mut self.nodes[1 - to],
        };
        process.start_again();
        self.expect_declared(whole);
    }

    /// Waits until the node `whole`, or another that is whole by then, is declared to hold the directory.
    fn expect_declared(&self, whole: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let far = index::Far::new(&self.port_of_index);
        let began = Instant::now();
        loop {
            let holders = runtime.block_on(far.holders());
            let declared = |at: usize| holders.iter().any(|name| name == ["a", "b"][at]);
            let other = 1 - whole;
            if declared(whole) || declared(other) && self.files.is_whole(&self.dirs[other]) {
                return;
            }
            assert!(began.elapsed() < DECLARED_MAX, "no whole copy is declared, but {holders:?}");
            std::thread::yield_now();
        }
    }

    /// Whether the only copy lies there, whole.
    fn is_at(&self, to: usize) -> bool {
        self.files.is_gone(&self.dirs[1 - to]) && self.files.is_whole(&self.dirs[to])
    }
}
