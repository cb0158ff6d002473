//! Sectors whose files are deleted come back on two workers, PreCommit1 on one and PreCommit2 on the other, with real proofs up
//! to PreCommit2: of committed capacity, with three files as data, and through killed processes. What is known of them is
//! what a stand-in for a full node says.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees which points were tried")]

mod elsewhere;
mod standin;
mod system;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use elsewhere::{FILES, Lost, SEALING_MAX, give, sealed_elsewhere, with_another_ticket, write};
use serde_json::{Value, json};
use system::dice::Dice;
use system::{
    COMMAND_MAX, Daemon, ask_until, executors, json as answer, kill, ok, read_piece, refused, run_within,
    sealyard, text,
};

/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";
/// Processes that are killed unless `SEALYARD_LOST_KILLS` says how many; from which seed unless `SEALYARD_LOST_SEED` gives one.
const KILLS: usize = 4;
const SEED: u64 = 6;
/// Entries in a sector's log after which trying again is taken to be in vain: a worker is away for a few seconds.
const RETRIES: usize = 200;
/// So many tries for each: some sectors are back before their point comes.
const TRIES: usize = 4;

/// A manager, a worker for PreCommit1 and one for PreCommit2, which has the path that stores.
struct Yard {
    home: PathBuf,
    listen: String,
    running: BTreeMap<&'static str, Daemon>,
    addresses: BTreeMap<&'static str, String>,
}

impl Yard {
    fn new(home: &Path) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let (running, addresses) = (BTreeMap::new(), BTreeMap::new());
        let mut yard = Self { home: home.to_owned(), listen: "127.0.0.1:0".into(), running, addresses };
        let said = yard.start("manager");
        let listen = said.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
        yard.listen = listen.expect("an address").trim_end_matches(';').to_owned();
        for name in ["A", "B"] {
            yard.start(name);
            let workers = answer(home, &["workers", "list"]);
            let found = workers.as_array().and_then(|all| all.iter().find(|worker| worker["name"] == name));
            let url = found.and_then(|worker| worker["url"].as_str()).expect("it is listed");
            let address = url.trim_start_matches("http://").trim_end_matches("/rpc/v0").to_owned();
            yard.addresses.insert(name, address);
        }
        let attach = ["storage", "attach", "--init", "--store", "--worker-repo", "B", "store"];
        ok(sealyard(home).args(attach));
        yard
    }

    /// Gives the line that says that it is ready.
    fn start(&mut self, name: &'static str) -> String {
        let mut command = sealyard(&self.home);
        let ready = if name == "manager" {
            command.args(["run", "--listen", &self.listen]);
            "listening on"
        } else {
            let address = self.addresses.get(name).map_or("127.0.0.1:0", String::as_str);
            command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]);
            let tasks: &[&str] =
                if name == "A" { &["--addpiece", "--precommit1"] } else { &["--precommit2"] };
            command.args(tasks);
            "registered"
        };
        let mut daemon = Daemon::start(name, &mut command);
        let said = daemon.expect(ready);
        self.running.insert(name, daemon);
        said
    }

    fn kill(&mut self, name: &'static str) {
        let mut daemon = self.running.remove(name).expect("it was started");
        kill(&mut daemon);
    }

    /// Workers that have nothing to do find a manager that was soon back with their next heartbeat alone, or when they have
    /// something to say.
    fn wake(&self) {
        for (worker, task) in [("A", "PC1"), ("B", "PC2")] {
            ok(sealyard(&self.home).args(["worker", "tasks", "enable", task, "--worker-repo", worker]));
        }
    }

    fn status(&self, number: u64) -> Value {
        answer(&self.home, &["sectors", "status", &number.to_string()])
    }

    fn file(&self, kind: &str, number: u64) -> PathBuf {
        self.home.join(format!("store/{kind}/s-t01000-{number}"))
    }

    /// Deletes all of both sectors, and tells nobody.
    fn lose(&self) {
        for number in [1, 2] {
            fs::remove_file(self.file("sealed", number)).expect("the replica is deleted");
            fs::remove_dir_all(self.file("cache", number)).expect("its cache, too");
        }
        fs::remove_file(self.file("unsealed", 1)).expect("its data, too");
    }

    fn rebuild(&self, pieces: &[String]) -> Command {
        let mut command = sealyard(&self.home);
        command.args(["sectors", "rebuild", "1,2", "--parallel", "2"]);
        give(&mut command, pieces);
        command
    }

    /// Both are back, byte for byte, and the files of sector 1 can be read.
    fn is_whole(&self, lost: &Lost) {
        assert!(fs::read(self.file("unsealed", 1)).expect("its data") == lost.unsealed, "other data");
        // A manager that has just started knows it again when its worker is back.
        let found = || answer(&self.home, &["storage", "find", "1"]);
        let is_known = |found: &Value| {
            let places = found["places"].as_array().map(Vec::as_slice).unwrap_or_default();
            places.iter().any(|place| place["types"].to_string().contains("unsealed"))
        };
        ask_until("its data is known", COMMAND_MAX, found, is_known);
        for (data, (name, length)) in self.status(1)["data"].as_array().expect("data").iter().zip(FILES) {
            let read = read_piece(&self.home, data["offset"].as_u64().expect("written"), length as u64);
            assert!(read == fs::read(self.home.join(name)).expect("the file"), "{name} is another file");
        }
        for (number, replica) in [1, 2].into_iter().zip(&lost.replicas) {
            assert_eq!(self.status(number)["state"], "Proving");
            assert!(fs::read(self.file("sealed", number)).expect("it is there") == *replica, "{number}");
        }
    }

    /// How much was logged of both, and whether both are back. What failed while something was dead is tried again now and
    /// not in a minute; what stays so, whatever is tried, ends the test.
    fn look(&self) -> (usize, bool) {
        let (mut events, mut back) = (0, true);
        for number in [1, 2] {
            let status = self.status(number);
            let log = status["log"].as_array().map(Vec::as_slice).unwrap_or_default();
            let retries = log.iter().rev().take_while(|entry| is_of_retry(entry)).count();
            assert!(
                retries < RETRIES,
                "sector {number} stays in {}: {}",
                status["state"],
                status["last_error"]
            );
            events += log.len();
            back &= status["state"] == "Proving" && self.file("sealed", number).is_file();
            if status["state"].as_str().is_some_and(|state| state.ends_with("Failed")) {
                // It may be under way by now.
                let mut retry = sealyard(&self.home);
                run_within(retry.args(["sectors", "retry", &number.to_string()]), COMMAND_MAX);
            }
        }
        (events, back)
    }
}

impl Drop for Yard {
    /// A test that failed tells where it stood.
    fn drop(&mut self) {
        let asked: [&[&str]; 7] = [
            &["storage", "find", "1"],
            &["storage", "find", "2"],
            &["storage", "list"],
            &["sectors", "status", "1"],
            &["sectors", "status", "2"],
            &["sealing", "jobs"],
            &["workers", "list"],
        ];
        for words in asked.into_iter().filter(|_| std::thread::panicking()) {
            let told = sealyard(&self.home).args(words).arg("--json").output().expect("it runs");
            println!("{words:?}: {}{}", text(&told.stdout), text(&told.stderr));
        }
    }
}

/// Whether nothing else has happened to a sector than that it was tried again in vain.
fn is_of_retry(entry: &Value) -> bool {
    let event = entry[2].as_str().unwrap_or_default();
    event.starts_with("retry by") || event.starts_with("failure: ")
}

/// Who has done a task of a sector, each time.
fn workers(status: &Value, task: &str) -> Vec<String> {
    let rows = status["tasks"].as_array().expect("tasks").iter().filter(|row| row["task"] == task);
    rows.map(|row| row["worker"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn lost_sectors_come_back_on_two_workers_through_killed_processes() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let lost = sealed_elsewhere(&home);
    let mut yard = Yard::new(&home);

    ok(sealyard(&home).args(["worker", "pause", "B"]));
    let listed = answer(&home, &["worker", "list"]);
    let of = |name: &str| {
        listed.as_array().and_then(|all| all.iter().find(|worker| worker["name"] == name).cloned())
    };
    let paused = |name: &str| of(name).expect("it is listed")["paused"].clone();
    assert_eq!((paused("A"), paused("B")), (json!(false), json!(true)), "{listed:#}");
    let resumed = ok(sealyard(&home).args(["worker", "resume", "B"]));
    assert!(resumed.contains("B is enabled"), "{resumed}");
    let told = ok(sealyard(&home).args(["worker", "info", "B"]));
    assert!(told.contains("PC2(0)") && told.contains("PATH:"), "{told}");

    // All that is missing is named at once, and the sector that lacks nothing is sealed.
    let repair = ["repair", "run", "--manager", "--metadata", "lost.json", "--parallel", "2"];
    let output = run_within(sealyard(&home).args(repair), SEALING_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let named = told.lines().find(|line| line.contains("its data is missing")).expect("it is named");
    let mut cids = lost.pieces.iter().map(|piece| piece.split_once('=').expect("CID=FILE").0);
    assert!(cids.all(|cid| named.contains(cid)), "{named}");
    let mut command = sealyard(&home);
    command.args(repair);
    give(&mut command, &lost.pieces);
    let told = text(&run_within(&mut command, SEALING_MAX).stdout);
    assert!(told.contains("2 of 2 sectors are back"), "{told}");
    yard.is_whole(&lost);
    for number in [1, 2] {
        let status = yard.status(number);
        assert_eq!(workers(&status, "seal/v0/precommit/1"), ["A"], "{status:#}");
        assert_eq!(workers(&status, "seal/v0/precommit/2"), ["B"], "{status:#}");
    }
    ok(sealyard(&home).args(["proving", "check"]));

    yard.lose();
    let told = run_within(sealyard(&home).args(["proving", "check", "--only-bad"]), COMMAND_MAX);
    assert_eq!(told.status.code(), Some(13), "{}", text(&told.stderr));
    let told = text(&told.stdout);
    assert!(told.contains("sector 1: bad: sealed: ") && told.contains("s-t01000-1 is not there"), "{told}");
    assert!(told.contains("sector 2: bad: sealed: ") && told.contains("s-t01000-2 is not there"), "{told}");

    // One bit of the ticket: nothing is begun, and the state stays.
    write(&home, "wrong.json", &[with_another_ticket(&lost.entries[1])]);
    let wrong = ["repair", "run", "--manager", "--metadata", "wrong.json"];
    let told = refused(sealyard(&home).args(wrong), 1);
    assert!(told.contains("1 of 1 sectors are not back: 2"), "{told}");
    assert_eq!((&yard.status(2)["state"], &yard.status(2)["last_error"]), (&json!("Proving"), &json!("")));

    killed_on_the_way(&mut yard, &lost);
    yard.is_whole(&lost);
    ok(sealyard(&home).args(["proving", "check"]));
    let rebuilt = answer(&home, &["sectors", "list", "--rebuild", "--sealing=false", "--offline"]);
    assert_eq!(rebuilt.as_array().map(Vec::len), Some(2), "{rebuilt:#}");
    let state = ok(sealyard(&home).args(["sectors", "state", "f01000", "1", "--offline"]));
    assert!(state.contains("Rebuild:\n    done") && state.contains("Pieces with data: 3"), "{state}");
}

/// Both are sealed again, and lost once more when they are back, until so many processes were killed on the way.
fn killed_on_the_way(yard: &mut Yard, lost: &Lost) {
    let seed = std::env::var("SEALYARD_LOST_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    let wanted = std::env::var("SEALYARD_LOST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut dice = Dice(seed);
    let (mut kills, mut times) = (0, 1);
    for _ in 0..wanted * TRIES {
        if kills == wanted {
            break;
        }
        if yard.look().1 {
            yard.is_whole(lost);
            yard.lose();
            times += 1;
        }
        let victim = *dice.one_of(&["manager", "A", "B", "an executor"]);
        let behind = usize::try_from(dice.below(12)).expect("small");
        let (before, _) = yard.look();
        let begin = || Daemon::start("rebuild", &mut yard.rebuild(&lost.pieces));
        let (mut rebuild, mut refused) = (begin(), String::new());
        let come = || {
            let (events, back) = yard.look();
            // A manager that has just started may not know all paths again.
            if rebuild.has_ended() && !back {
                let words = rebuild.said();
                if words != refused {
                    println!("a rebuild ended: {words}");
                    refused = words;
                }
                rebuild = begin();
            }
            let running = |task| executors(&yard.home, task);
            let found = ["ap", "pc1", "pc2", "fin"].into_iter().flat_map(running).next();
            (events, back, found)
        };
        let (events, back, found) =
            ask_until("a point on the way", SEALING_MAX, come, |(events, back, found)| {
                *back || *events >= before + behind && (victim != "an executor" || found.is_some())
            });
        if back {
            continue;
        }
        println!("kill {}: {victim}, {} events after its start, seed {seed}", kills + 1, events - before);
        match found.filter(|_| victim == "an executor") {
            // One that has just ended was not killed.
            Some(process) => {
                let process = process.to_string();
                let mut kill = Command::new("kill");
                kills += usize::from(run_within(kill.args(["-9", &process]), COMMAND_MAX).status.success());
            }
            None => {
                yard.kill(victim);
                yard.start(victim);
                yard.wake();
                kills += 1;
            }
        }
        drop(rebuild);
    }
    assert_eq!(kills, wanted, "sectors were back before so many points were met");
    let back = || {
        yard.look();
        let output = run_within(&mut yard.rebuild(&lost.pieces), SEALING_MAX);
        (output.status.success(), text(&output.stderr))
    };
    ask_until("both sectors", SEALING_MAX, back, |(done, _)| *done);
    println!("{wanted} kills while two sectors were lost and sealed again {times} times");
}
