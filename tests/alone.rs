//! `repair run` on one machine, without any manager: sectors of committed capacity and with data come back with the CommR that
//! they had, wherever the process and its executors are killed on the way; what is wrong is kept aside, and nothing lies where
//! good sectors belong but those. With real proofs up to PreCommit2. What is known of the sectors is what a stand-in for a full
//! node says.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees which points were tried")]

mod elsewhere;
mod standin;
mod system;

use std::fs;
use std::path::Path;
use std::process::Command;

use elsewhere::{Lost, SEALING_MAX, give, sealed_elsewhere, with_another_ticket, write};
use rusqlite::{Connection, OpenFlags};
use sealtasks::recovery::crash_points;
use serde_json::{Value, json};
use system::dice::Dice;
use system::{
    COMMAND_MAX, Daemon, ask_until, executors, json as answer, kill, ok, run_within, sealyard, snapshot, text,
};

/// Kills unless `SEALYARD_ALONE_KILLS` says how many; from which seed unless `SEALYARD_ALONE_SEED` gives one.
const KILLS: usize = 20;
const SEED: u64 = 6;
/// So many lives for each kill: some end before their point comes.
const TRIES: usize = 3;
/// Lives that end at some event do so within this part of the events of a whole repair.
const PART: u64 = 4;

/// Both sectors, or those of another file.
fn repair(home: &Path, lost: &Lost, file: &str) -> Command {
    let mut command = sealyard(home);
    command.args(["repair", "run", "--metadata", file, "--parallel", "2"]);
    give(&mut command, &lost.pieces);
    command
}

/// Each is in the result's directory, byte for byte, and nothing else is there.
fn is_whole(home: &Path, lost: &Lost) {
    for (number, replica) in [1, 2].into_iter().zip(&lost.replicas) {
        let file = home.join(format!("sector/sealed/s-t01000-{number}"));
        assert!(fs::read(file).expect("its replica") == *replica, "{number}");
        assert!(home.join(format!("sector/cache/s-t01000-{number}/p_aux")).is_file());
    }
    assert!(fs::read(home.join("sector/unsealed/s-t01000-1")).expect("its data") == lost.unsealed);
}

/// The names of all files and directories below one of the home.
fn names(home: &Path, dir: &str) -> Vec<String> {
    let all = snapshot(&home.join(dir)).into_iter();
    all.map(|(path, _)| path.strip_prefix(home).expect("below").display().to_string()).collect()
}

/// How much has happened to the repair; 0: it has not begun. Reads without a trace, also what somebody killed has left.
fn events(home: &Path) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let count = Connection::open_with_flags(home.join("temp/repair-f01000/state.db"), flags)
        .and_then(|db| db.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0)));
    count.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
}

/// A repair without any trouble, into a directory that a running manager has attached: that one knows the sectors then. Gives
/// what there is in the end, and how much happened.
fn undisturbed(home: &Path, lost: &Lost) -> (Vec<String>, u64) {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let dir = home.join("sector");
    ok(sealyard(home).args(["storage", "attach", "--init", "--store", &dir.to_string_lossy()]));
    let output = run_within(&mut repair(home, lost, "lost.json"), SEALING_MAX);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains(&format!("{} is attached, and its files are declared", dir.display())), "{told}");
    for (number, kinds) in [("1", 3), ("2", 2)] {
        let found = answer(home, &["storage", "find", number]);
        let [place] = &found["places"].as_array().expect("places")[..] else { panic!("{found:#}") };
        assert_eq!(place["types"].as_array().map(Vec::len), Some(kinds), "{found:#}");
    }
    drop(manager);
    is_whole(home, lost);
    (left(home), events(home))
}

/// What there is in both directories.
fn left(home: &Path) -> Vec<String> {
    [names(home, "temp"), names(home, "sector")].concat()
}

/// How a life ends.
#[derive(Debug)]
enum Death {
    /// So many events after its beginning.
    Behind(u64),
    /// Where the program says that it may.
    At(&'static str),
}

impl Death {
    fn random(dice: &mut Dice, events: u64) -> Self {
        // What is done in executors dies with them, below.
        let points: Vec<_> = crash_points().filter(|point| !point.starts_with("executor.")).collect();
        match dice.below(2) {
            0 => Self::Behind(dice.below(events / PART)),
            _ => Self::At(dice.one_of::<&str>(&points)),
        }
    }

    /// Starts the repair and has it die so. False: it came to its end before.
    fn met(&self, home: &Path, lost: &Lost, mark: &Path) -> bool {
        let before = events(home);
        let mut command = repair(home, lost, "lost.json");
        if let Self::At(point) = self {
            command.env("SEALYARD_CRASH_AT", format!("{point}@{}", mark.display()));
        }
        let mut repair = Daemon::start("repair", &mut command);
        if let Self::Behind(behind) = self {
            let is_there = || repair.has_ended() || events(home) >= before + behind;
            ask_until("a point on the way", SEALING_MAX, is_there, |there| *there);
            if !repair.has_ended() {
                kill_if_there(repair.id());
            }
        }
        let code = repair.end();
        assert!(code.is_none() || code == Some(0), "{self:?}: exit code {code:?}: {}", repair.said());
        code.is_none()
    }
}

/// It may have just ended by itself.
fn kill_if_there(process: u32) {
    run_within(Command::new("kill").args(["-9", &process.to_string()]), COMMAND_MAX);
}

/// Processes that work for the repair.
fn at_work(home: &Path) -> Vec<u32> {
    ["ap", "pc1", "pc2", "fin"].into_iter().flat_map(|task| executors(home, task)).collect()
}

#[test]
fn killed_at_random_points_a_repair_goes_on_and_ends_the_same() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let lost = sealed_elsewhere(&home);
    let (whole, events) = undisturbed(&home, &lost);
    let anew = || ["temp", "sector"].map(|dir| fs::remove_dir_all(home.join(dir)).expect("removed"));
    anew();

    let number =
        |name, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let seed = number("SEALYARD_ALONE_SEED", SEED);
    let wanted = usize::try_from(number("SEALYARD_ALONE_KILLS", KILLS as u64)).expect("small");
    let mut dice = Dice(seed);
    let (mut kills, mut times) = (0, 1);
    for life in 0..wanted * TRIES {
        if kills == wanted {
            break;
        }
        let death = Death::random(&mut dice, events);
        let all = dice.below(2) == 0;
        if !death.met(&home, &lost, &home.join(format!("died-{life}"))) {
            is_whole(&home, &lost);
            assert_eq!(left(&home), whole, "{death:?}: after {kills} kills, seed {seed}");
            anew();
            times += 1;
            continue;
        }
        kills += 1;
        let working = at_work(&home);
        println!("kill {kills}: {death:?}, {working:?} at work, killed: {all}, seed {seed}");
        working.into_iter().filter(|_| all).for_each(kill_if_there);
        for (number, replica) in [1, 2].into_iter().zip(&lost.replicas) {
            let stored = fs::read(home.join(format!("sector/sealed/s-t01000-{number}")));
            assert!(stored.is_err() || stored.is_ok_and(|stored| stored == *replica), "half-written");
        }
    }
    assert_eq!(kills, wanted, "repairs were over before so many points were met");
    let output = run_within(&mut repair(&home, &lost, "lost.json"), SEALING_MAX);
    let (told, said) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success() && said.contains("2 of 2 sectors are back"), "{said}{told}");
    is_whole(&home, &lost);
    assert_eq!(left(&home), whole, "after {kills} kills, seed {seed}");
    assert_eq!(at_work(&home), Vec::<u32>::new(), "nobody works on");
    println!("{kills} kills while two sectors were sealed again {times} times; {events} events undisturbed");
}

/// What a sector was sealed from that there never was.
fn entry(number: u32, proof: u32) -> Value {
    json!({
        "SectorNumber": number, "Ticket": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "SealProof": proof,
        "SealedCID": {"/": "bagboea4b5abcatlxechwbp7kjpjguna6r6q7ejrhe6mdp3lf34pmswn27pkkiekz"},
    })
}

/// Of sectors of any size: what is only played must never be taken for a replica.
#[test]
fn a_repair_is_never_rehearsed() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    write(&home, "one.json", &[entry(1, 5)]);
    let mut repair = sealyard(&home);
    repair.args(["repair", "run", "--metadata", "one.json"]).env("SEALYARD_EXECUTOR", "all=rehearsal");
    let output = run_within(&mut repair, COMMAND_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("sectors are real, so its own tasks are not played"), "{told}");
    let made = left(&home).into_iter().filter(|name| name.contains("s-t01000-1"));
    assert_eq!(made.collect::<Vec<_>>(), [""; 0]);
}

/// Nothing is begun that cannot be finished: what is needed is said with what is there.
#[test]
fn too_little_space_is_refused_before_the_start() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let all: Vec<Value> = (1..=1000).map(|number| entry(number, 9)).collect();
    let file = json!({"Miner": "f01000", "SectorSize": 64_u64 << 30, "SectorInfos": all});
    fs::write(home.join("large.json"), file.to_string()).expect("the file");
    let words = ["repair", "run", "--metadata", "large.json", "--parallel", "1000"];
    let output = run_within(sealyard(&home).args(words), COMMAND_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{told}");
    let (temp, sector) = (home.join("temp"), home.join("sector"));
    // Sealed, unsealed and 14.1 times the size for layers and trees; then sealed and a tenth of it.
    let needed = format!(
        "space needed: {} GiB in {} (1000 sectors of 64GiB at once), {} GiB in {}",
        64 * 161 * 100,
        temp.display(),
        64 * 11 * 100,
        sector.display()
    );
    assert!(told.contains(&needed), "{told}");
    let there = format!("{}: {} GiB are needed, ", temp.display(), 64 * 172 * 100);
    let (_, rest) = told.split_once(&there).unwrap_or_else(|| panic!("{told}"));
    let free = rest.split_once(" GiB are free and 0 KiB are used by this repair").map(|(free, _)| free);
    let free: u64 = free.and_then(|free| free.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    assert!(free < 64 * 172 * 100, "{told}");
    for dir in [temp, sector] {
        assert_eq!(fs::read_dir(dir).expect("a directory").count(), 0, "nothing is begun");
    }
}

/// A manager, and a worker that has the directory for results open.
fn with_a_worker(home: &Path) -> (Daemon, Daemon) {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let run = ["worker", "run", "--name", "W", "--address", "127.0.0.1:0", "--worker-repo", "W"];
    let mut worker = Daemon::start("worker", sealyard(home).args(run));
    worker.expect("registered");
    ok(sealyard(home).args(["storage", "attach", "--worker-repo", "W", "sector"]));
    (manager, worker)
}

/// Into a directory that a worker of the operator's manager has open meanwhile.
fn comes_back_to_a_worker(home: &Path, repair: &mut Command) {
    let (_manager, mut worker) = with_a_worker(home);
    let mut is_back = || {
        let output = run_within(repair, SEALING_MAX);
        let (told, said) = (text(&output.stderr), text(&output.stdout));
        assert!(output.status.success(), "{told}");
        assert!(said.contains("2 of 2 sectors are back"), "{said}");
        told
    };
    let told = is_back();
    let dir = home.join("sector");
    assert!(told.contains(&format!("{} is attached, and its files are declared", dir.display())), "{told}");
    let found = answer(home, &["storage", "find", "2"]);
    assert_eq!(found["places"][0]["workers"], json!(["W"]), "{found:#}");
    // Whom the files cannot be declared to changes nothing of what came of them.
    kill(&mut worker);
    let told = is_back();
    let is_told = ["not all of its files are declared", "sealyard storage attach"];
    assert!(is_told.iter().any(|words| told.contains(words)), "{told}");
}

#[test]
fn one_machine_alone_repairs_and_goes_on_after_a_crash() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let lost = sealed_elsewhere(&home);
    let alone = |file: &str| {
        let mut command = repair(&home, &lost, file);
        command.args(["--stagger", "1"]);
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
    // It dies when its first AddPiece runs, so nothing of what follows has begun.
    let died = format!("worker.started@{}", home.join("died").display());
    let mut first = Daemon::start("first", alone("wrong.json").env("SEALYARD_CRASH_AT", died));
    first.expect("space needed:");
    assert_eq!(first.end(), None, "killed, not exited: {}", first.said());
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
        // The first time it may have come to that by itself before it was asked for.
        assert!(times == 1 || told.contains("sector 1 is tried once more"), "{told}");
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
    comes_back_to_a_worker(&home, &mut alone("lost.json"));
    for (number, replica) in [1, 2].into_iter().zip(&lost.replicas) {
        assert!(fs::read(stored(number)).expect("its replica") == *replica, "{number}");
        assert!(home.join(format!("sector/cache/s-t01000-{number}/p_aux")).is_file());
        assert!(!home.join(format!("temp/sealing/sealed/s-t01000-{number}")).exists());
    }
    assert!(!home.join("~").exists(), "the home directory is meant");
}
