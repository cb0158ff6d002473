//! Room that is promised to tasks, with real processes killed by SIGKILL: before it is promised, after, and while files are
//! being written. After each kill the books (rows of the durable state, beside what lies on disk) must be right: a promise
//! belongs to one open attempt, is there once, is gone with the attempt's end, and all promises together never exceed what
//! the path has left.

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sealtasks::{FileType, FileTypes};
use serde_json::Value;
use system::addresses::free_addresses;
use system::{Daemon, SEALYARD, ask_until, ok, sealyard};

/// Nothing here takes longer than PreCommit1 of 8 MiB sectors; a loaded machine gets more.
const STEP_MAX: Duration = Duration::from_secs(240);

const SECTORS: usize = 4;

/// What the path may hold: the data of four sectors of 8 MiB, and room for two times PreCommit1 (15.1 sectors), not three.
const MOST_BYTES: u64 = 380 << 20;

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

struct Yard {
    home: PathBuf,
    listen: String,
    address: String,
    manager: Daemon,
    worker: Option<Daemon>,
}

impl Yard {
    fn new(home: &Path) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "8MiB", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let [listen, address, _] = free_addresses();
        let manager = Self::manager(home, &listen);
        Self { home: home.to_owned(), listen, address, manager, worker: None }
    }

    fn manager(home: &Path, listen: &str) -> Daemon {
        let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", listen]));
        manager.expect("listening on");
        manager
    }

    fn kill_manager(&mut self) {
        kill(&mut self.manager);
    }

    fn start_manager(&mut self) {
        self.manager = Self::manager(&self.home, &self.listen);
    }

    fn kill_worker(&mut self) {
        kill(self.worker.as_mut().expect("a worker"));
    }

    /// Starts the worker, at the address that it had.
    fn start_worker(&mut self) {
        let mut command = sealyard(&self.home);
        command.args(["worker", "run", "--name", "seal", "--worker-repo", "seal", "--no-local-storage"]);
        command.args(["--address", &self.address, "--addpiece", "--precommit1"]);
        command.arg("--executor").arg(format!("pc1={}", self.home.join("gated-pc1").display()));
        // Only room is to limit them, however few CPUs there are.
        command.env("PC1_MAX_PARALLELISM", "0");
        let mut worker = Daemon::start("seal", &mut command);
        worker.expect("registered");
        self.worker = Some(worker);
    }

    fn json(&self, args: &[&str]) -> Value {
        let said = ok(sealyard(&self.home).args(args).arg("--json"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"))
    }

    fn path(&self) -> PathBuf {
        self.home.join("nvme")
    }

    /// How many executors wait at the gate with half a file written.
    fn writing(&self) -> usize {
        let marks = fs::read_dir(self.home.join("begun")).expect("the marks").flatten();
        marks.filter(|mark| is_gated(&mark.file_name().to_string_lossy())).count()
    }

    /// Waits for two, of open attempts, with right books all the while.
    fn until_two_write(&self) -> Books {
        let two = |books: &Books| {
            books.steps().iter().filter(|step| **step == "PC1").count() == 2 && self.writing() == 2
        };
        ask_until("two executors that write", STEP_MAX, || self.audit(), two)
    }

    /// The books, which must be right.
    fn audit(&self) -> Books {
        let books = Books::read(&self.home);
        books.check(&self.path());
        books
    }
}

fn kill(daemon: &mut Daemon) {
    let sent = Command::new("kill").args(["-9", &daemon.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    assert_eq!(daemon.end(), None, "killed, not exited");
}

/// Whether the process with this id is one of the script's; an id is soon another process's.
fn is_gated(pid: &str) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains("gated-pc1")
}

/// Takes the place of PreCommit1's executor: writes half a file, waits at the gate, and then does the work.
fn gated_executor(home: &Path) {
    fs::create_dir(home.join("begun")).expect("a directory");
    ok(Command::new("mkfifo").arg(home.join("gate")));
    let place = home.display();
    let script = format!(
        "#!/bin/sh\nsealed=$(sed 's/.*\"sealed\":\"\\([^\"]*\\)\".*/\\1/' \"$3\")\n\
         head -c 4194304 /dev/zero > \"$sealed\"\n: > \"{place}/begun/$$\"\ncat '{place}/gate' > /dev/null\n\
         rm \"$sealed\"\nexec {SEALYARD} exec \"$@\"\n"
    );
    let program = home.join("gated-pc1");
    fs::write(&program, script).expect("the script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Lets those who wait go on, and all who come later.
fn open_gate(home: &Path) {
    fs::write(home.join("open"), "").expect("a file");
    let gate = fs::File::options().write(true).open(home.join("gate")).expect("somebody waits");
    fs::rename(home.join("open"), home.join("gate")).expect("open for good");
    drop(gate);
}

/// One promise as the durable state has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    task: i64,
    attempt: i64,
    sector: i64,
    types: i64,
    bytes: u64,
}

/// The promises and the open attempts, as they were at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Books {
    rows: Vec<Row>,
    /// Task and attempt, with the step.
    open: BTreeMap<(i64, i64), String>,
}

impl Books {
    fn read(home: &Path) -> Self {
        let mut db = open_state(home);
        let moment = db.transaction().expect("one moment");
        let mut rows = moment
            .prepare(
                "SELECT r.task, r.attempt, t.number, r.types, r.bytes FROM reservation r JOIN task t ON t.id = r.task",
            )
            .expect("a query");
        let rows = rows
            .query_map([], |row| {
                let (task, attempt) = (row.get(0)?, row.get(1)?);
                Ok(Row {
                    task,
                    attempt,
                    sector: row.get(2)?,
                    types: row.get(3)?,
                    bytes: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            })
            .expect("rows");
        let mut rows: Vec<Row> = rows.map(|row| row.expect("a row")).collect();
        rows.sort();
        let mut open = moment
            .prepare(
                "SELECT a.task, a.attempt, t.step FROM attempt a JOIN task t ON t.id = a.task WHERE a.ended_ms = 0",
            )
            .expect("a query");
        let open = open
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))
            .expect("rows")
            .map(|row| row.expect("a row"))
            .collect();
        Self { rows, open }
    }

    fn check(&self, path: &Path) {
        for row in &self.rows {
            assert!(self.open.contains_key(&(row.task, row.attempt)), "{row:?} belongs to nobody: {self:?}");
        }
        let files: BTreeSet<_> = self.rows.iter().map(|row| (row.sector, row.types)).collect();
        assert_eq!(files.len(), self.rows.len(), "promised twice: {self:?}");
        for (attempt, step) in &self.open {
            let promised = self.rows.iter().any(|row| (row.task, row.attempt) == *attempt);
            assert!(promised, "{step} {attempt:?} was promised nothing: {self:?}");
        }
        let missing = self.rows.iter().map(|row| row.bytes.saturating_sub(on_disk(path, row)));
        let (used, missing) = (usage(path), missing.sum::<u64>());
        assert!(
            used + missing <= MOST_BYTES,
            "{used} bytes are used and {missing} promised of {MOST_BYTES}: {self:?}"
        );
    }

    /// What PreCommit1 has, which waits at the gate; where there are threads left, AddPiece goes on meanwhile.
    fn of_pc1(&self) -> Self {
        let open = self.open.iter().filter(|(_, step)| *step == "PC1");
        let open: BTreeMap<_, _> = open.map(|(attempt, step)| (*attempt, step.clone())).collect();
        let rows = self.rows.iter().filter(|row| open.contains_key(&(row.task, row.attempt)));
        Self { rows: rows.cloned().collect(), open }
    }

    fn steps(&self) -> Vec<&str> {
        self.open.values().map(String::as_str).collect()
    }
}

fn open_state(home: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(home.join(".sealyard/state.db"), flags).expect("the state");
    db.busy_timeout(STEP_MAX).expect("a limit");
    db
}

/// Bytes on disk of a file, or of a directory with what is in it. What goes away meanwhile counts nothing.
fn usage(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| usage(&entry.path()));
    found.blocks() * 512 + inside.sum::<u64>()
}

fn on_disk(path: &Path, row: &Row) -> u64 {
    let types = FileTypes::try_from(row.types).expect("types");
    let name = format!("s-t01000-{}", row.sector);
    let of = |kind: FileType| usage(&path.join(kind.name()).join(&name));
    types.iter().map(of).sum()
}

#[test]
fn promises_survive_kills_belong_to_one_attempt_and_never_exceed_the_path() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    gated_executor(&home);
    let mut yard = Yard::new(&home);
    killed_before_anything_is_promised(&mut yard);
    let before = two_write(&mut yard);
    the_manager_is_killed(&mut yard, &before);
    the_worker_is_killed(&mut yard, &before);

    // Both at once.
    yard.kill_worker();
    yard.kill_manager();
    yard.audit();
    yard.start_manager();
    yard.start_worker();
    yard.until_two_write();

    killed_again_and_again_while_the_work_goes_on(&mut yard);
    let quiet = ask_until("the end", STEP_MAX, || yard.audit(), |books| books.open.is_empty());
    assert_eq!(quiet.rows, [], "all was given back");
    each_attempt_ended_once(&home);
    nothing_was_bound_where_it_had_no_room(&home);
    let given_back = |paths: &Value| paths[0]["reserved"] == 0 && paths[0]["healthy"] == true;
    ask_until("the path's own word", STEP_MAX, || yard.json(&["storage", "list"]), given_back);
}

/// Nobody could take the tasks.
fn killed_before_anything_is_promised(yard: &mut Yard) {
    let count = SECTORS.to_string();
    ok(sealyard(&yard.home).args(["sectors", "pledge", "--until", "c1", "--count", &count]));
    yard.kill_manager();
    assert_eq!(yard.audit().rows, [], "nothing was promised");
    yard.start_manager();
    assert_eq!(yard.audit().rows, []);
}

fn two_write(yard: &mut Yard) -> Books {
    yard.start_worker();
    let (most, dir) = (MOST_BYTES.to_string(), yard.path());
    let attach = ["storage", "attach", "--init", "--seal", "--max-storage", &most, "--worker", "seal"];
    ok(sealyard(&yard.home).args(attach).arg(&dir));
    let before = yard.until_two_write().of_pc1();
    assert_eq!(before.rows.len(), 4, "sealed and cache of two sectors: {before:?}");
    before
}

/// What was promised still is, to the same attempts.
fn the_manager_is_killed(yard: &mut Yard, before: &Books) {
    yard.kill_manager();
    assert_eq!(yard.audit().of_pc1(), *before);
    yard.start_manager();
    let connected = |workers: &Value| {
        let mut all = workers.as_array().into_iter().flatten();
        all.any(|it| it["name"] == "seal" && it["state"] == "live")
    };
    ask_until("the worker", STEP_MAX, || yard.json(&["workers", "list"]), connected);
    let told = |paths: &Value| {
        assert_eq!(yard.audit().of_pc1(), *before, "neither given back nor promised again");
        paths[0]["healthy"] == true && paths[0]["reserved"].as_u64().is_some_and(|bytes| bytes > 0)
    };
    ask_until("its path", STEP_MAX, || yard.json(&["storage", "list"]), told);
}

/// What was promised stays with attempts that go on, and is given back once where they do not.
fn the_worker_is_killed(yard: &mut Yard, before: &Books) {
    yard.kill_worker();
    assert_eq!(yard.audit().of_pc1(), *before, "nobody said that they have ended");
    yard.start_worker();
    let after = yard.until_two_write().of_pc1();
    for (attempt, step) in &after.open {
        let rows = |books: &Books| {
            let of_it = books.rows.iter().filter(|row| (row.task, row.attempt) == *attempt);
            of_it.cloned().collect::<Vec<_>>()
        };
        if before.open.contains_key(attempt) {
            assert_eq!(rows(&after), rows(before), "{step} {attempt:?} goes on with what it has");
        }
    }
}

fn killed_again_and_again_while_the_work_goes_on(yard: &mut Yard) {
    open_gate(&yard.home);
    let sealed = |home: &Path| {
        let sql = "SELECT count(*) FROM sector WHERE state = 'PreCommit2'";
        open_state(home).query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a count")
    };
    for done in 1..=SECTORS {
        let next = |_: &Books| sealed(&yard.home) >= done as i64;
        ask_until("the next PreCommit1", STEP_MAX, || yard.audit(), next);
        yard.kill_manager();
        yard.audit();
        if done == 2 {
            yard.kill_worker();
        }
        yard.start_manager();
        if done == 2 {
            yard.start_worker();
        }
    }
}

/// A worker refuses what its path cannot hold; a manager whose books are right never sends it there.
fn nothing_was_bound_where_it_had_no_room(home: &Path) {
    let sql = "SELECT task || '.' || attempt || ': ' || reason FROM attempt WHERE reason LIKE '%STO010%'";
    let db = open_state(home);
    let mut query = db.prepare(sql).expect("a query");
    let refused: Vec<String> =
        query.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(refused, Vec::<String>::new());
}

/// What is bound ends, and once.
fn each_attempt_ended_once(home: &Path) {
    let db = open_state(home);
    let mut query = db
        .prepare(
            "SELECT task, attempt, sum(kind = 'attempt_bound'), sum(kind = 'attempt_ended') FROM event
             WHERE attempt IS NOT NULL GROUP BY task, attempt",
        )
        .expect("a query");
    let rows = query
        .query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })
        .expect("rows");
    for row in rows {
        let (task, attempt, bound, ended) = row.expect("a row");
        assert_eq!((bound, ended), (1, 1), "attempt {task}.{attempt}");
    }
}
