//! Sectors whose files are deleted come back on two workers, PreCommit1 on one and PreCommit2 on the other, with real proofs up
//! to PreCommit2: of committed capacity, with three files as data, and through killed processes. And on one machine
//! without any manager. What is known of them is what a stand-in for a full node says.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees which points were tried")]

mod standin;
mod system;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use standin::{Deal, Effect, PreCommitted, Proven, StandInNode, World};
use system::dice::Dice;
use system::{
    COMMAND_MAX, Daemon, ask_until, executors, json as answer, kill, ok, read_piece, refused, run_within,
    sealyard, text,
};

/// Two 2 KiB sectors take seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";
const FULL_NODE: &str = "FULLNODE_API_INFO";
/// Processes that are killed unless `SEALYARD_LOST_KILLS` says how many; from which seed unless `SEALYARD_LOST_SEED` gives one.
const KILLS: usize = 4;
const SEED: u64 = 6;
/// Entries in a sector's log after which trying again is taken to be in vain: a worker is away for a few seconds.
const RETRIES: usize = 200;
/// So many tries for each: some sectors are back before their point comes.
const TRIES: usize = 4;
/// The data of sector 1.
const FILES: [(&str, usize); 3] = [("one.car", 200), ("two.car", 508), ("three.car", 60)];

/// What two sectors were sealed from somewhere else, and to.
struct Lost {
    entries: Vec<Value>,
    replicas: Vec<Vec<u8>>,
    /// What sector 1 holds.
    unsealed: Vec<u8>,
    /// `CID=FILE` of each piece.
    pieces: Vec<String>,
}

/// Seals a sector with three files and one of zeros for a full node's chain, which then has both, and exports from there
/// what it says of them: `lost.json`.
fn sealed_elsewhere(home: &Path) -> Lost {
    // The node answers while this thread waits for processes.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(World::new()));
    let first = |words: &[&str]| {
        let mut command = sealyard(home);
        command.args(["--repo", "first"]).args(words).env(FULL_NODE, node.api_info());
        command
    };
    ok(&mut first(&["init", "--actor", "t01000"]));
    let mut manager = Daemon::start("first", &mut first(&["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let (mut pieces, mut deals) = (Vec::new(), Vec::new());
    for (deal, (name, length)) in (71..).zip(FILES) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        fs::write(home.join(name), bytes).expect("a file");
        let given = answer(home, &["--repo", "first", "sectors", "add-piece", name]);
        let piece = given["cid"].as_str().expect("a CID").to_owned();
        pieces.push(format!("{piece}={name}"));
        let size = given["padded_size"].as_u64().expect("a size");
        node.world().deals.insert(deal, Deal { piece, size });
        deals.push(deal);
    }
    ok(&mut first(&["sectors", "start-seal", "1"]));
    ok(&mut first(&["sectors", "pledge"]));
    let (mut promised, mut proven, mut replicas) = (Vec::new(), Vec::new(), Vec::new());
    for number in [1, 2] {
        let words = ["--repo", "first", "sectors", "status", &number.to_string()];
        let sealed = |status: &Value| status["state"] == "PreCommitting";
        let status = ask_until("a replica", SEALING_MAX, || answer(home, &words), sealed);
        let text = |key: &str| status[key].as_str().expect("text").to_owned();
        let (proof, sealed) = (5, text("comm_r"));
        let ticket_epoch = status["ticket_epoch"].as_i64().expect("a height");
        let (deals, unsealed) =
            if number == 1 { (deals.clone(), Some(text("comm_d"))) } else { (vec![], None) };
        let made = PreCommitted { number, proof, sealed: sealed.clone(), ticket_epoch, deals, unsealed };
        promised.push(Effect::PreCommit(made));
        proven.push(Effect::Prove(Proven { number, proof, sealed, key: None }));
        let file = home.join(format!("first/sealed/s-t01000-{number}"));
        replicas.push(fs::read(file).expect("its replica"));
    }
    drop(manager);
    node.world().mine_with(promised);
    node.world().mine_with(proven);
    node.world().mine();
    let export = ["repair", "export", "--miner", "f01000", "--output", "lost.json", "1", "2"];
    ok(sealyard(home).args(export).env(FULL_NODE, node.api_info()));
    let file = fs::read(home.join("lost.json")).expect("the file");
    let mut file: Value = serde_json::from_slice(&file).expect("JSON");
    let entries = file["SectorInfos"].as_array_mut().map(std::mem::take).expect("sectors");
    assert_eq!((entries.len(), entries[0]["Pieces"].as_array().map(Vec::len)), (2, Some(3)), "{entries:#?}");
    let unsealed = fs::read(home.join("first/unsealed/s-t01000-1")).expect("its data");
    Lost { entries, replicas, unsealed, pieces }
}

fn write(home: &Path, name: &str, entries: &[Value]) {
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": entries});
    fs::write(home.join(name), file.to_string()).expect("the file");
}

/// Tells a command where each piece is.
fn give(command: &mut Command, pieces: &[String]) {
    for piece in pieces {
        command.args(["--piece", piece]);
    }
}

/// A ticket with one bit of it changed.
fn with_another_ticket(entry: &Value) -> Value {
    let base64 = &base64::engine::general_purpose::STANDARD;
    let mut ticket = base64.decode(entry["Ticket"].as_str().expect("a ticket")).expect("base64");
    ticket[17] ^= 1;
    let mut entry = entry.clone();
    entry["Ticket"] = json!(base64.encode(ticket));
    entry
}

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

    /// Deletes all of both sectors, and has the index told.
    fn lose(&self) {
        for number in [1, 2] {
            fs::remove_file(self.file("sealed", number)).expect("the replica is deleted");
            fs::remove_dir_all(self.file("cache", number)).expect("its cache, too");
        }
        fs::remove_file(self.file("unsealed", 1)).expect("its data, too");
        // A manager that has just started may not know B again.
        let redeclare = ["storage", "redeclare", "--all", "--worker", "B"];
        let tell = || run_within(sealyard(&self.home).args(redeclare), COMMAND_MAX).status.success();
        ask_until("the index is told", COMMAND_MAX, tell, |told| *told);
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
    assert!(told.contains("sector 1: bad: no storage path has its sealed file"), "{told}");
    assert!(told.contains("sector 2: bad: no storage path has its sealed file"), "{told}");

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

#[test]
fn one_machine_alone_repairs_and_goes_on_after_a_crash() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let lost = sealed_elsewhere(&home);
    let alone = |file: &str| {
        let mut command = sealyard(&home);
        command.args(["repair", "run", "--metadata", file, "--parallel", "2", "--stagger", "1"]);
        give(&mut command, &lost.pieces);
        command
    };
    let stored = |number: u32| home.join(format!("sector/sealed/s-t01000-{number}"));
    // Where finished sectors lie nothing is sealed: what turns out wrong would lie among them.
    let both = home.join("both");
    fs::create_dir(&both).expect("made");
    let meta = json!({ "ID": "both", "Weight": 10, "CanSeal": true, "CanStore": true, "MaxStorage": 0 });
    fs::write(both.join("sectorstore.json"), meta.to_string()).expect("written");
    let output = run_within(alone("lost.json").arg("--sealing-result").arg(&both), COMMAND_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{told}");
    assert!(told.contains("CanSeal true") && told.contains("--sealing-result"), "{told}");
    assert_eq!(fs::read_dir(&both).expect("a directory").count(), 1, "nothing was begun");
    // Sector 2 comes with another ticket.
    write(&home, "wrong.json", &[lost.entries[0].clone(), with_another_ticket(&lost.entries[1])]);
    let mut first = Daemon::start("first", &mut alone("wrong.json"));
    first.expect("space needed:");
    let begun = || {
        let file = |number: u32| home.join(format!("temp/sealing/unsealed/s-t01000-{number}")).exists();
        file(1) || file(2)
    };
    ask_until("the first file", SEALING_MAX, begun, |begun| *begun);
    kill(&mut first);
    // What lies where sector 1 is to be made is left alone until an operator has looked. Of sector 2 the other replica stays
    // aside, and the exit code says so; made once more it would be the same.
    let original = home.join("temp/sealing/sealed/s-t01000-1");
    fs::create_dir_all(original.parent().expect("a directory")).expect("made");
    fs::write(&original, [7; 2048]).expect("written");
    for times in [1, 2] {
        let output = run_within(&mut alone("wrong.json"), SEALING_MAX);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{times}: {told}");
        let not_back = ["2 of 2 sectors are not back: 1 2", "1 of 2 sectors are not back: 2"][times - 1];
        assert!(told.contains(not_back), "{times}: {told}");
        assert!(told.contains("was proven") && told.contains("to begin from nothing"), "{times}: {told}");
        assert!(!told.contains("sector 2 is tried once more"), "{times}: {told}");
        assert_eq!(told.contains("sector 1 is tried once more"), times == 2, "{times}: {told}");
        if times == 1 {
            assert!(told.contains("a replica has turned up on path"), "{told}");
            assert_eq!(fs::read(&original).expect("it is left"), [7; 2048]);
            fs::remove_file(&original).expect("looked at, and deleted");
        }
        assert!(
            told.contains(&format!("sealyard storage attach {}", home.join("sector").display())),
            "{told}"
        );
        assert!(!stored(2).exists(), "nothing lies where good sectors belong");
        assert!(home.join("temp/sealing/sealed/s-t01000-2").is_file(), "it is kept aside");
    }
    // With the right one it comes back.
    let output = run_within(&mut alone("lost.json"), SEALING_MAX);
    let (told, said) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{told}");
    assert!(said.contains("2 of 2 sectors are back"), "{said}");
    for (number, replica) in [1, 2].into_iter().zip(&lost.replicas) {
        assert!(fs::read(stored(number)).expect("its replica") == *replica, "{number}");
        assert!(home.join(format!("sector/cache/s-t01000-{number}/p_aux")).is_file());
        assert!(!home.join(format!("temp/sealing/sealed/s-t01000-{number}")).exists());
    }
    assert!(!home.join("~").exists(), "the home directory is meant");
}
