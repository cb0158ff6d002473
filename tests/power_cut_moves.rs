//! The power of the whole machine is cut while an operator's move is under way between two workers, and the disk loses what
//! neither of them has synced (`platter`). Whenever that is, a complete copy lies on the disk, nothing half-written is taken for
//! one, and the move is done when everything has started again. Real processes; the cache directory of a real sector with a file
//! of several blocks in it.
//!
//! `SEALYARD_POWER_CUTS=all` cuts at every crash point of a move and loses in each of the ways.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees where the power was cut")]

mod platter;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use platter::yard::Yard;
use platter::{CUTS, Cut};
use sealtasks::recovery::file_points;
use serde_json::Value;
use system::large_cache::{LargeCache, holders};
use system::trio::{NO_LOCAL_TASKS, SEALING_MAX};
use system::{COMMAND_MAX, ask_until, json, ok, run_within, sealyard};

/// So much that what has come is synced once before all of it is there (bytes): after 256 MiB.
const LARGE: u64 = 288 << 20;
/// Three blocks (bytes).
const SMALL: u64 = 48 << 20;
/// When a move syncs what has come.
const SYNCED: &str = "worker.fetch.synced";

/// Where the power is cut when not everywhere. The large one comes first.
const CHOSEN: [(&str, Cut); 8] = [
    (SYNCED, Cut::Nothing),
    ("worker.fetch.noted:2", Cut::Names),
    ("worker.fetch.arrived", Cut::Nothing),
    ("worker.fetch.placed", Cut::Nothing),
    ("worker.fetch.owed", Cut::Nothing),
    ("worker.leave.dropped", Cut::Deletions),
    ("worker.leave.doubted", Cut::Nothing),
    ("worker.fetch.settled", Cut::Nothing),
];

/// So often a move is tried again that an earlier life of the manager had begun.
const AT_ONCE: &str = "[Scheduler]\nHeartbeat = \"500ms\"\n";

/// B has it at first.
const WORKERS: [&str; 2] = ["B", "A"];

/// A sector whose cache directory lies at one of two workers.
struct Scene {
    yard: Yard,
    cache: LargeCache,
    /// Of the storage paths.
    ids: [String; 2],
    at: usize,
}

impl Scene {
    fn new(top: &Path) -> Self {
        let mut yard = Yard::new(top);
        // From the next start on what was begun is gone on with at once.
        yard.write("config.toml", ".sealyard/config.toml", &format!("{NO_LOCAL_TASKS}{AT_ONCE}"));
        ok(&mut yard.trio.pledge());
        yard.trio.sealed(1, "a pledge");
        yard.pledged = 1;
        let paths = WORKERS.map(|name| yard.trio.home.join(name));
        let id = |path: &PathBuf| {
            let bytes = fs::read(path.join("sectorstore.json")).expect("a storage path");
            let meta: Value = serde_json::from_slice(&bytes).expect("JSON");
            meta["ID"].as_str().expect("an id").to_owned()
        };
        let ids = [id(&paths[0]), id(&paths[1])];
        let cache = LargeCache::make(paths, LARGE);
        let scene = Self { yard, cache, ids, at: 0 };
        scene.keep();
        scene
    }

    /// What was written by hand is safe.
    fn keep(&self) {
        self.yard.platter.keep(&self.cache.large(self.at));
        self.yard.platter.keep(&self.cache.dir(self.at));
    }

    fn home(&self) -> &Path {
        &self.yard.trio.home
    }

    /// Moves it to the other worker and cuts the power when one of them comes to the point.
    fn cut_at(&mut self, point: &str, cut: Cut) {
        let what = format!("{point}, {cut:?}");
        let (from, to) = (self.at, 1 - self.at);
        let mark = self.yard.aside.join(&what);
        let stands = WORKERS[if point.starts_with("worker.fetch.") { to } else { from }];
        self.yard.trio.kill(stands);
        self.yard.start_to_stand(stands, &format!("{point}@{}", mark.display()));
        let moving = self.begin(to, mark.clone());
        ask_until(&what, SEALING_MAX, || mark.exists(), |there| *there);
        self.yard.cut(cut);
        moving.join().expect("the command has ended");
        self.look(point.split(':').next().unwrap_or(point), &what);
        // Whoever has the file is there before the move goes on: otherwise its deletion is asked for half a minute later.
        ["manager", WORKERS[from], WORKERS[to]].into_iter().for_each(|name| self.yard.start(name, None));
        self.ended(to, &what);
        println!("{what}: the move is done");
        self.at = to;
    }

    /// An operator's move. It is refused until both workers have told what they have, and ends with the manager.
    fn begin(&self, to: usize, mark: PathBuf) -> JoinHandle<()> {
        let (home, id) = (self.home().to_owned(), self.ids[to].clone());
        std::thread::spawn(move || {
            while !mark.exists() {
                let mut command = sealyard(&home);
                run_within(command.args(["storage", "move", "--types", "cache", "1", &id]), COMMAND_MAX);
            }
        })
    }

    /// What the disk alone says, before anything starts on it.
    fn look(&self, point: &str, what: &str) {
        let (from, to) = (self.at, 1 - self.at);
        let arrived = || self.cache.is_whole_in(&self.cache.fetching(to).join("s-t01000-1.part/data"));
        match point {
            "worker.fetch.synced" | "worker.fetch.noted" | "worker.fetch.arrived" | "worker.fetch.placed" => {
                assert!(self.cache.is_whole(from), "{what}: the source is as it was");
            }
            _ => assert!(self.cache.is_whole(to), "{what}: the copy that was declared is whole"),
        }
        match point {
            SYNCED => {
                let blocks = self.cache.synced(to);
                assert!(blocks.len() >= 16, "{what}: noted as safe: {blocks:?}");
                let lost: Vec<_> =
                    blocks.iter().filter(|block| !self.cache.has_arrived(to, **block)).collect();
                assert!(lost.is_empty(), "{what}: of {blocks:?} these are not there: {lost:?}");
            }
            "worker.fetch.arrived" => assert!(arrived(), "{what}: all that was noted as arrived"),
            "worker.fetch.placed" => {
                assert!(arrived() || self.cache.is_whole(to), "{what}: what had arrived")
            }
            // Whether it is the one that was moved has not been looked at yet.
            "worker.leave.doubted" => {
                let doubted =
                    self.left(from).into_iter().filter(|entry| entry.to_string_lossy().contains(".doubted-"));
                let is_there =
                    self.cache.is_whole(from) || doubted.into_iter().any(|at| self.cache.is_whole_in(&at));
                assert!(is_there, "{what}: what is not known to be the moved file is not deleted");
            }
            _ => {}
        }
    }

    /// What lies beside the directories of a path: on its way in or out.
    fn left(&self, at: usize) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache.fetching(at)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// The move is done without anybody's wish: the manager finishes what its earlier life had begun.
    fn ended(&self, to: usize, what: &str) {
        let mut named_whole = false;
        let find = || {
            let told = holders(&json(self.home(), &["storage", "find", "1"]));
            if told.contains(&self.ids[to]) && !named_whole {
                assert!(self.cache.is_whole(to), "{what}: a copy that is not whole is named");
                named_whole = true;
            }
            told
        };
        let is_over =
            |told: &Vec<String>| *told == [self.ids[to].clone()] && !self.cache.dir(1 - to).exists();
        ask_until(&format!("the end of a move after {what}"), SEALING_MAX, find, is_over);
        assert!(self.cache.is_whole(to), "{what}: every byte is there");
        let none = |locks: &Value| *locks == Value::Array(Vec::new());
        ask_until("no file is locked", COMMAND_MAX, || json(self.home(), &["storage", "locks"]), none);
        let left = || [self.left(0), self.left(1)].concat();
        ask_until(&format!("nothing is left of {what}"), COMMAND_MAX, left, Vec::is_empty);
    }
}

/// The cuts of this run.
fn cuts() -> Vec<(&'static str, Cut)> {
    let of_moves = |point: &&str| point.starts_with("worker.fetch.") || point.starts_with("worker.leave.");
    let mut points: Vec<_> = file_points().filter(of_moves).collect();
    points.sort_by_key(|point| *point != SYNCED);
    if std::env::var("SEALYARD_POWER_CUTS").is_ok_and(|which| which == "all") {
        return points.into_iter().flat_map(|point| CUTS.map(|cut| (point, cut))).collect();
    }
    let is_chosen = |point: &&str| CHOSEN.iter().any(|(chosen, _)| chosen.split(':').next() == Some(*point));
    assert!(points.iter().all(is_chosen), "{points:?}: the power is cut at each");
    CHOSEN.to_vec()
}

#[test]
fn a_move_survives_a_power_cut_with_a_whole_copy_at_every_moment() {
    let top = tempfile::tempdir().expect("a directory");
    let top = top.path().canonicalize().expect("a path without links");
    let mut scene = Scene::new(&top);
    let mut is_large = true;
    for (point, cut) in cuts() {
        if point != SYNCED && is_large {
            is_large = false;
            scene.cache.write(scene.at, SMALL);
            scene.keep();
        }
        scene.cut_at(point, cut);
    }
}
