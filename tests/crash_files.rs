//! A process killed at every crash point of files on their way (the second table of `sealtasks::recovery`), and in tasks that
//! come late in a sector's life, several times for each sector: it gets where it would have got, every task has one accepted
//! result, each file lies in one place, and nothing is left behind. Then the same of what an operator has done with a finished
//! sector. Real processes and files; what would take minutes of proving is played.
//!
//! `SEALYARD_CRASH_FILES=all` has the manager die within Commit1 and Commit2, too; `real` does all of it with real proofs of 2 KiB,
//! Commit2 among them.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees what each crash cost")]

mod system;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sealtasks::recovery::{crash_points, file_points};
use serde_json::Value;
use system::large_cache::LargeCache;
use system::trio::{NO_LOCAL_TASKS, SEALING_MAX, STORE, Trio, Way, ends_of};
use system::{ask_until, json, ok, parameters, run_within, sealyard};

/// Where processes die, one after the other, while something is done: each goes on to its next death.
type Deaths = &'static [(&'static str, &'static [&'static str])];

/// A sector's way from its pledge into storage. An attempt of a task is lost at most twice: a third time waits.
const SEALED: [Deaths; 4] = [
    &[
        ("A", &["worker.leave.dropped"]),
        (
            "B",
            &[
                "worker.fetch.arrived",
                "worker.running/ReturnSealCommit1",
                "worker.acquired/ReturnFinalizeSector",
                "worker.move.declared",
                "worker.journalled/ReturnMoveStorage",
            ],
        ),
    ],
    &[
        ("A", &["worker.leave.doubted"]),
        (
            "B",
            &[
                "worker.fetch.placed",
                "worker.fetch.owed",
                "worker.declared/ReturnSealCommit1",
                "worker.ended/ReturnFinalizeSector",
                "worker.move.renamed",
                "worker.acknowledged/ReturnMoveStorage",
            ],
        ),
    ],
    &[(
        "B",
        &["worker.fetch.settled", "worker.ended/ReturnSealCommit2", "worker.accepted/ReturnMoveStorage"],
    )],
    // What an operator has done comes to these, of which each ends a life that begins here.
    &[(
        "manager",
        &["manager.after.sector_held", "manager.before.sector_let_go", "manager.after.delete_permitted"],
    )],
];

/// In place of the last of them, at length: the manager dies within Commit1 and Commit2 first, and its workers take their time to
/// find it again.
const AT_LENGTH: Deaths = &[(
    "manager",
    &[
        "manager.after.attempt_bound:4",
        "manager.before.call_returned:2",
        "manager.after.sector_held",
        "manager.before.sector_let_go",
        "manager.after.delete_permitted",
    ],
)];

/// What an operator then has done with the first of these sectors: its data made again, let go, and the rest moved.
const ERRANDS: [Deaths; 3] = [
    &[("B", &["worker.ended/ReturnUnsealPiece"])],
    &[("B", &["worker.delete.dropped", "worker.delete.aside"])],
    // The later death last: what comes on the other connections while one syncs may be all there is.
    &[("A", &["worker.fetch.noted:2", "worker.fetch.synced"])],
];

/// So many deaths of the manager come after the last sector is in its place.
const LATER: usize = 3;

/// Executors that die in the last of these sectors: the task's word, and where.
const EXECUTORS: [(&str, &str); 2] = [("c1", "executor.begun"), ("fin", "executor.reported")];

/// So much that what has come is synced before all of it is there (bytes): after 256 MiB, of which none need have come before
/// the first of two deaths.
const LARGE: u64 = 352 << 20;

/// So often a move is tried again that an earlier life of the manager had begun.
const AT_ONCE: &str = "[Scheduler]\nHeartbeat = \"500ms\"\n";

/// The tasks of a sector that goes all the way.
const TASKS: [&str; 7] = [
    "seal/v0/addpiece",
    "seal/v0/precommit/1",
    "seal/v0/precommit/2",
    "seal/v0/commit/1",
    "seal/v0/commit/2",
    "seal/v0/finalize",
    "seal/v0/fetch",
];

struct Yard {
    trio: Trio,
    /// Where each process dies next, with the file that says so.
    deaths: BTreeMap<&'static str, VecDeque<(String, PathBuf)>>,
    times: usize,
}

impl Yard {
    /// A wish to die there, and the file that is made then.
    fn wish(&mut self, point: &str) -> (String, PathBuf) {
        self.times += 1;
        let mark = self.trio.home.join(format!("died-{}", self.times));
        (format!("{point}@{}", mark.display()), mark)
    }

    /// Has processes die while the next thing is done.
    fn arm(&mut self, deaths: Deaths) {
        for (process, points) in deaths {
            let wishes: VecDeque<_> = points.iter().map(|point| self.wish(point)).collect();
            self.trio.kill(process);
            self.trio.start(process, wishes.front().map(|(wish, _)| wish.as_str()));
            self.deaths.insert(process, wishes);
        }
    }

    /// Has executors of B die from its next start on.
    fn arm_executors(&mut self) -> Vec<PathBuf> {
        let (mut text, mut marks) = (String::new(), Vec::new());
        for (task, point) in EXECUTORS {
            let (wish, mark) = self.wish(point);
            text += &format!("[executor.{task}.env]\nSEALYARD_CRASH_AT = {wish:?}\n");
            marks.push(mark);
        }
        fs::write(self.trio.home.join("B/config.toml"), text).expect("config.toml");
        self.trio.kill("B");
        self.trio.start("B", None);
        marks
    }

    /// Starts again whoever has died, to die where it is to die next. Where somebody is still to die.
    fn bury(&mut self) -> Vec<String> {
        for (process, wishes) in &mut self.deaths {
            if wishes.front().is_some_and(|(_, mark)| mark.exists()) {
                wishes.pop_front();
                assert_eq!(self.trio.daemon(process).end(), None, "killed, not exited");
                self.trio.start(process, wishes.front().map(|(wish, _)| wish.as_str()));
            }
        }
        self.deaths.retain(|_, wishes| !wishes.is_empty());
        self.deaths.values().flatten().map(|(wish, _)| wish.clone()).collect()
    }

    /// Waits until all but `later` have died where they were to die; whatever else is to be done goes on meanwhile.
    fn outlive(&mut self, what: &str, later: usize, mut meanwhile: impl FnMut()) {
        for left in (later..self.bury().len()).rev() {
            let mut die = || {
                meanwhile();
                self.bury()
            };
            let waiting = die();
            ask_until(&format!("{what}: a death at one of {waiting:?}"), SEALING_MAX, die, |waiting| {
                waiting.len() <= left
            });
        }
    }

    fn sealed(&mut self, number: u64, deaths: Deaths, is_last: bool) {
        let what = format!("sector {number}");
        let begun = Instant::now();
        let marks = if is_last { self.arm_executors() } else { Vec::new() };
        self.arm(deaths);
        ok(sealyard(&self.trio.home).args(["sectors", "pledge"]));
        let mut retry = sealyard(&self.trio.home);
        // A step that failed is tried again at once; any other sector's retry is refused.
        retry.args(["sectors", "retry", &number.to_string()]);
        let later = if is_last { LATER } else { 0 };
        self.outlive(&what, later, || drop(run_within(&mut retry, SEALING_MAX)));
        let status = self.trio.stored(number, &what);
        assert!(marks.iter().all(|mark| mark.exists()), "{what}: the executors died");
        for task in TASKS {
            println!("{what} {task:22} {:?}", ends_of(&status, task, &what));
        }
        let home = self.trio.home.clone();
        self.lies_in(&what, number, &["sealed", "cache"], STORE, || {
            // A copy that the last attempt has left behind by its work is nobody's until somebody cleans up.
            for worker in ["A", "B"] {
                ok(sealyard(&home).args(["storage", "cleanup", "--worker", worker, "--really-do-it"]));
            }
        });
        self.rests(&what);
        println!("{what}: {:?}", begun.elapsed());
    }

    /// Each of these files of a sector comes to lie in one path and no other does; nothing is on its way.
    fn lies_in(&self, what: &str, number: u64, kinds: &[&str], path: &str, tidy: impl Fn()) {
        let wanted: BTreeSet<_> =
            kinds.iter().map(|kind| format!("{path}/{kind}/s-t01000-{number}")).collect();
        let found = || {
            let mut found = BTreeSet::new();
            for kind in ["unsealed", "sealed", "cache"] {
                for dir in ["A", "B", STORE].map(|path| format!("{path}/{kind}")) {
                    let place = format!("{dir}/s-t01000-{number}");
                    let on_its_way = format!("{dir}/fetching");
                    let names =
                        fs::read_dir(self.trio.home.join(&on_its_way)).into_iter().flatten().flatten();
                    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
                    let names = names.filter(|name| name.starts_with(&format!("s-t01000-{number}.")));
                    found.extend(names.map(|name| format!("{on_its_way}/{name}")));
                    found.extend(Some(place).filter(|place| self.trio.home.join(place).exists()));
                }
            }
            if found != wanted {
                tidy();
            }
            found
        };
        ask_until(&format!("{what}: {wanted:?} alone"), SEALING_MAX, found, |found| *found == wanted);
    }

    /// No call, no lock, no task and no promise of room is left.
    fn rests(&self, what: &str) {
        let home = &self.trio.home;
        for worker in ["A", "B"] {
            let left = || fs::read_dir(home.join(worker).join("calls")).expect("calls").count();
            ask_until(&format!("{what}: no call's directory is left"), SEALING_MAX, left, |left| *left == 0);
        }
        let none = |found: &Value| *found == Value::Array(Vec::new());
        for asked in [["storage", "locks"], ["sealing", "jobs"]] {
            ask_until(&format!("{what}: no {asked:?}"), SEALING_MAX, || json(home, &asked), none);
        }
        let promised = || {
            let paths = json(home, &["storage", "list"]);
            paths.as_array().expect("paths").iter().filter_map(|path| path["reserved"].as_u64()).sum::<u64>()
        };
        ask_until(&format!("{what}: no room is promised"), SEALING_MAX, promised, |bytes| *bytes == 0);
    }

    /// What an operator wants of sector 1, and asks for again until it is done.
    fn errand(&mut self, args: &[&str], (deaths, later): (Deaths, usize), kinds: &[&str], path: &str) {
        let what = format!("{args:?}");
        let begun = Instant::now();
        self.arm(deaths);
        let is_done = Arc::new(AtomicBool::new(false));
        let asking = {
            let (mut command, is_done) = (sealyard(&self.trio.home), Arc::clone(&is_done));
            command.args(args);
            std::thread::spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    run_within(&mut command, SEALING_MAX);
                }
            })
        };
        self.outlive(&what, later, || {});
        self.lies_in(&what, 1, kinds, path, || {});
        is_done.store(true, Ordering::Relaxed);
        asking.join().expect("the command has ended");
        self.rests(&what);
        self.lies_in(&what, 1, kinds, path, || {});
        println!("{what}: {:?}", begun.elapsed());
    }

    fn id(&self, path: &str) -> String {
        let bytes = fs::read(self.trio.home.join(path).join("sectorstore.json")).expect("a storage path");
        let meta: Value = serde_json::from_slice(&bytes).expect("JSON");
        meta["ID"].as_str().expect("an id").to_owned()
    }

    fn errands(&mut self) {
        const REPLICA: [&str; 2] = ["sealed", "cache"];
        const ALL: [&str; 3] = ["unsealed", "sealed", "cache"];
        let a = self.id("A");
        let [unsealed, released, moved] = ERRANDS;
        self.errand(&["sectors", "unseal", "1"], (unsealed, LATER), &ALL, STORE);
        let release = ["sectors", "release-unsealed", "1", "--all"];
        self.errand(&release, (released, LATER), &REPLICA, STORE);
        let paths = [STORE, "A"].map(|path| self.trio.home.join(path));
        let cache = LargeCache::make(paths, LARGE);
        self.errand(&["storage", "move", "1", &a], (moved, 1), &REPLICA, "A");
        assert!(cache.is_whole(1), "every byte is there");
        let mut remove = sealyard(&self.trio.home);
        remove.args(["sectors", "remove", "--really-do-it", "1"]);
        // The manager's next life has the sector let go first.
        let mut removed = || run_within(&mut remove, SEALING_MAX).status.success();
        ask_until("sector 1 is removed", SEALING_MAX, &mut removed, |removed| *removed);
        let cleanup = ["storage", "cleanup", "--worker", "A", "--really-do-it"];
        self.errand(&cleanup, (&[], 0), &[], "A");
    }
}

#[test]
fn a_sector_s_files_survive_a_kill_at_every_point_of_their_way() {
    let wish = std::env::var("SEALYARD_CRASH_FILES").unwrap_or_default();
    let (is_long, is_real) = (!wish.is_empty(), wish == "real");
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    if is_real {
        parameters::generate(&home);
    }
    let way = if is_real { Way::Storage } else { Way::Rehearsal };
    let mut yard = Yard { trio: Trio::all_the_way(&home, way), deaths: BTreeMap::new(), times: 0 };
    // From its next start on a manager goes on at once.
    fs::write(home.join(".sealyard/config.toml"), format!("{NO_LOCAL_TASKS}{AT_ONCE}")).expect("config.toml");
    for (at, deaths) in SEALED.into_iter().enumerate() {
        let is_last = at + 1 == SEALED.len();
        let deaths = if is_last && is_long { AT_LENGTH } else { deaths };
        yard.sealed(at as u64 + 1, deaths, is_last);
    }
    yard.errands();
}

/// What is on none of the lists above would be a state of which nobody knows how it goes on.
#[test]
fn every_point_of_the_table_is_on_a_list_of_deaths() {
    let deaths = SEALED.into_iter().flatten().chain(ERRANDS.into_iter().flatten());
    let listed = deaths.flat_map(|(_, points)| *points).copied().chain(EXECUTORS.map(|(_, point)| point));
    let listed: BTreeSet<_> = listed.filter_map(|point| point.split([':', '/']).next()).collect();
    let missed: Vec<_> = file_points().filter(|point| !listed.contains(point)).collect();
    assert_eq!(missed, Vec::<&str>::new(), "nobody dies there");
    let known: BTreeSet<_> = crash_points().chain(file_points()).collect();
    assert_eq!(listed.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "no such point");
}
