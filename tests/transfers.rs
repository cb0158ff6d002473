//! Downloads on a live system with real processes: they are shown and slowed down while they run, and moves survive
//! kill -9 of the sender, the receiver and the manager.

#![allow(clippy::print_stdout, reason = "a test tells its seed, and what went on under it")]

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use system::addresses::free_addresses;
use system::dice::Dice;
use system::large_cache::{LargeCache, Noted, holders};
use system::{Daemon, ask_until, ok, refused, run_within, sealyard, text};

/// A small sector is at Commit1 within a minute; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);
/// A move that takes longer, with all kills in it, is stuck.
const MOVE_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// A manager without storage and the workers `left` and `right` with a path each.
struct Yard {
    home: tempfile::TempDir,
    /// Of the manager, of `left`, of `right`.
    addresses: [String; 3],
    tasks: [&'static [&'static str]; 2],
    daemons: [Option<Daemon>; 3],
}

const MANAGER: usize = 0;
const NAMES: [&str; 2] = ["left", "right"];

impl Yard {
    fn new(size: &str, tasks: [&'static [&'static str]; 2]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        ok(sealyard(home.path()).args([
            "init",
            "--actor",
            "t01000",
            "--no-local-storage",
            "--sector-size",
            size,
        ]));
        fs::write(home.path().join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let addresses = free_addresses();
        let mut yard = Self { home, addresses, tasks, daemons: [None, None, None] };
        for which in 0..3 {
            yard.start(which);
            let says = if which == MANAGER { "listening on" } else { "registered" };
            yard.daemons[which].as_mut().expect("just started").expect(says);
        }
        for name in NAMES {
            let dir = yard.home.path().join(format!("{name}-path"));
            let mut command = sealyard(yard.home.path());
            ok(command.args(["storage", "attach", "--init", "--seal", "--store", "--worker", name]).arg(dir));
        }
        yard
    }

    fn start(&mut self, which: usize) {
        let mut command = sealyard(self.home.path());
        let daemon = match which.checked_sub(1) {
            None => Daemon::start("manager", command.args(["run", "--listen", &self.addresses[MANAGER]])),
            Some(worker) => {
                let name = NAMES[worker];
                command.args(["worker", "run", "--name", name, "--worker-repo", name, "--no-local-storage"]);
                command.args(["--address", &self.addresses[which]]).args(self.tasks[worker]);
                Daemon::start(name, &mut command)
            }
        };
        self.daemons[which] = Some(daemon);
    }

    fn kill(&mut self, which: usize) {
        let mut daemon = self.daemons[which].take().expect("it runs");
        if !daemon.has_ended() {
            ok(std::process::Command::new("kill").args(["-9", &daemon.id().to_string()]));
            daemon.end();
        }
    }

    /// Does what a supervisor does: a worker ends when it finds no manager at its start.
    fn start_ended(&mut self) {
        for which in 0..3 {
            if self.daemons[which].as_mut().is_some_and(Daemon::has_ended) {
                self.start(which);
            }
        }
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(sealyard(self.home.path()).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    fn say(&self, args: &[&str]) -> String {
        ok(sealyard(self.home.path()).args(args))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}-path"))
    }

    fn id(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name).join("sectorstore.json")).expect("a storage path");
        let meta: Value = serde_json::from_slice(&bytes).expect("JSON");
        meta["ID"].as_str().expect("an id").to_owned()
    }
}

/// What `right` told.
fn of_right(hosts: &Value) -> &Value {
    let hosts = hosts.as_array().expect("a list");
    &hosts.iter().find(|host| host["host"] == "right").expect("right is listed")["report"]
}

#[test]
fn downloads_are_shown_with_their_end_and_slowed_down_and_let_go_while_they_run() {
    let yard = Yard::new("8MiB", [&["--addpiece", "--precommit1"], &["--precommit2"]]);
    let slow =
        yard.json(&["storage", "transfers", "--worker", "right", "--limit", "1MiB/s", "--streams", "2"]);
    assert_eq!(slow.as_array().map(Vec::len), Some(1), "{slow:#}");
    assert_eq!(
        of_right(&slow)["limits"],
        serde_json::json!({"bandwidth": 1 << 20, "parallel": 5, "streams": 2, "verify": true})
    );
    yard.say(&["sectors", "pledge"]);

    // PreCommit2 runs at the other worker, which downloads about 40 MiB for it.
    let fetching = |jobs: &Value| {
        let all = jobs.as_array().cloned().unwrap_or_default();
        all.into_iter().find(|job| job["worker"] == "right" && job["fetch"]["eta_s"].is_u64())
    };
    let jobs = ask_until(
        "a download",
        SEALING_MAX,
        || yard.json(&["sealing", "jobs"]),
        |jobs| fetching(jobs).is_some_and(|job| job["fetch"]["bytes_done"].as_u64() > Some(0)),
    );
    let fetch = &fetching(&jobs).expect("just seen")["fetch"];
    assert!(fetch["bytes_total"].as_u64() >= Some(16 << 20), "{fetch:#}");
    let said = yard.say(&["sealing", "jobs"]);
    assert!(said.contains("fetching ") && said.contains(" left, "), "{said}");

    let told = yard.json(&["storage", "transfers"]);
    let hosts: Vec<_> = told.as_array().expect("hosts").iter().map(|host| host["host"].clone()).collect();
    for name in ["manager", "left", "right"] {
        assert!(hosts.iter().any(|host| host == name), "{name} is missing: {hosts:?}");
    }
    let transfer = &of_right(&told)["transfers"][0];
    assert_eq!(
        (&transfer["sector"]["number"], &transfer["phase"]),
        (&1.into(), &"receiving".into()),
        "{told:#}"
    );
    assert_eq!((&transfer["from"], &transfer["to"]), (&yard.id("left").into(), &yard.id("right").into()));
    let said = yard.say(&["storage", "transfers"]);
    for words in
        ["1 MiB/s; 5 files at once, 2 connections each, verified", "receiving", " left", "right-path"]
    {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }

    let free = yard.json(&["storage", "transfers", "--limit", "none"]);
    assert_eq!(of_right(&free)["limits"]["bandwidth"], Value::Null, "{free:#}");
    let done = |told: &Value| of_right(told)["transfers"].as_array().is_some_and(Vec::is_empty);
    ask_until("its end", SEALING_MAX, || yard.json(&["storage", "transfers"]), done);
    for (args, code, why) in [
        (["--limit", "0"], 2, "--limit none"),
        (["--limit", "fast"], 2, "no size"),
        (["--limit", "1000KiB"], 2, "the least is 1MiB"),
        (["--streams", "17"], 2, "within 1 to 16"),
        (["--worker", "nobody"], 1, "no worker \"nobody\""),
    ] {
        let line = refused(sealyard(yard.home.path()).args(["storage", "transfers"]).args(args), code);
        assert!(line.contains(why), "{line}");
    }
}

/// Bytes of the file that makes a small sector's cache directory large.
const LARGE: u64 = 256 << 20;
/// An index that was killed knows everything again within this time: its workers tell it.
const TOLD_MAX: Duration = Duration::from_secs(60);
const KILLS: u32 = 20;

#[test]
fn moves_survive_kills_of_sender_receiver_and_manager() {
    let seal: &[&str] = &["--addpiece", "--precommit1", "--precommit2", "--commit"];
    let mut yard = Yard::new("2KiB", [seal, &["--unseal"]]);
    yard.say(&["sectors", "pledge", "--until", "c1"]);
    let at_rest = |status: &Value| status["stopped"] == true && status["c1_sha256"].is_string();
    ask_until("Commit1", SEALING_MAX, || yard.json(&["sectors", "status", "1"]), at_rest);
    let cache = LargeCache::make(NAMES.map(|name| yard.path(name)), LARGE);
    let ids = NAMES.map(|name| yard.id(name));
    let seed = u64::from(std::process::id()) | 1;
    println!("seed {seed}");
    let (mut dice, mut kills, mut to) = (Dice(seed), [0; 3], 1);
    while kills.iter().sum::<u32>() < KILLS {
        one_move(&mut yard, &cache, &ids[to], to, &mut dice, &mut kills);
        to = 1 - to;
    }
    // It is where it went last, known there, and nowhere else.
    let last = 1 - to;
    let told = ask_until(
        "the last move's end",
        MOVE_MAX,
        || yard.json(&["storage", "find", "1"]),
        |told| holders(told) == [ids[last].clone()],
    );
    assert!(cache.is_whole(last) && !cache.dir(1 - last).exists(), "{told:#}");
    println!("kills of manager, left, right: {kills:?}");
}

/// The manager names a whole copy at this moment. It may be on its way out while it is looked at; then it is asked again.
fn is_named(yard: &Yard, cache: &LargeCache) {
    let (first, whole) = named(yard, cache);
    if !whole {
        let (second, whole) = named(yard, cache);
        assert!(whole, "no whole copy is named, but {first:?} and then {second:?}");
    }
}

/// The paths that hold the cache directory by the manager's word, and whether one of these copies is whole.
fn named(yard: &Yard, cache: &LargeCache) -> (Vec<String>, bool) {
    let named = holders(&yard.json(&["storage", "find", "1"]));
    let whole = (0..2).any(|at| named.contains(&yard.id(NAMES[at])) && cache.is_whole(at));
    (named, whole)
}

fn one_move(yard: &mut Yard, cache: &LargeCache, id: &str, to: usize, dice: &mut Dice, kills: &mut [u32; 3]) {
    let begun = Instant::now();
    let planned = 1 + dice.below(4);
    let (mut done, mut next) = (0, dice.below(LARGE >> 24));
    let home = yard.home.path().to_owned();
    let mut moving = None;
    let mut noted: Option<Noted> = None;
    while cache.dir(1 - to).exists() || !cache.is_whole(to) {
        if begun.elapsed() >= MOVE_MAX {
            let said = yard.daemons.iter_mut().flatten().map(Daemon::said).collect::<Vec<_>>().join("\n--\n");
            panic!("a move does not end; kills so far {kills:?}\n{said}");
        }
        if let Some(now) = cache.noted(to) {
            now.follows(noted.as_ref());
            noted = Some(now);
        }
        yard.start_ended();
        let runs = moving.as_ref().is_some_and(|thread: &std::thread::JoinHandle<_>| !thread.is_finished());
        if !runs {
            let (home, id): (PathBuf, String) = (home.clone(), id.to_owned());
            moving = Some(std::thread::spawn(move || try_move(&home, &id)));
        }
        if done < planned && (cache.arrived(to).len() as u64 >= next || dice.below(400) == 0) {
            let which = dice.below(3) as usize;
            yard.kill(which);
            if which != MANAGER {
                is_named(yard, cache);
            }
            let whole = [0, 1, 0, 1].into_iter().any(|at| cache.is_whole(at));
            assert!(whole, "no whole copy is left after a kill of {which}; kills so far {kills:?}");
            yard.start(which);
            if which == MANAGER {
                yard.daemons[MANAGER].as_mut().expect("just started").expect("listening on");
                let begun = Instant::now();
                while !named(yard, cache).1 {
                    assert!(begun.elapsed() < TOLD_MAX, "no whole copy is known: {:?}", named(yard, cache).0);
                }
            }
            kills[which] += 1;
            done += 1;
            next = cache.arrived(to).len() as u64 + dice.below(LARGE >> 25);
        }
        std::thread::yield_now();
    }
    if let Some(thread) = moving {
        thread.join().expect("the command ended");
    }
}

/// It fails while one of the three is away, and is not tried before both workers are known.
fn try_move(home: &Path, id: &str) {
    let listed = run_within(sealyard(home).args(["workers", "list", "--json"]), MOVE_MAX);
    let listed = text(&listed.stdout);
    if !NAMES.iter().all(|name| listed.contains(&format!("\"name\": \"{name}\""))) {
        return;
    }
    let mut command = sealyard(home);
    let output = run_within(command.args(["storage", "move", "--types", "cache", "1", id]), MOVE_MAX);
    if !output.status.success() {
        println!("{}", text(&output.stderr).trim());
    }
}
