//! Backups made while the manager runs, and a manager that takes over from one: real processes, killed.

mod system;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use system::addresses::free_addresses;
use system::managers::{attempts, fleet, has_its_pc1, manager, runs, token};
use system::trio::NO_LOCAL_TASKS;
use system::{Daemon, ask_until, executors, hold, json, kill, ok, refused, sealyard, signal};

/// An 8 MiB sector is at Commit1 within half a minute; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// From the manager's death until another one has its worker and holds what runs there.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);

fn init(home: &Path) {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "8MiB", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
}

/// The executor of PreCommit1, stopped in the middle.
fn stopped_pc1(home: &Path) -> u32 {
    hold(home, "pc1", SEALING_MAX)
}

#[test]
fn a_manager_that_takes_over_goes_on_with_what_runs_and_takes_nothing_that_it_does_not_know() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    init(home);
    let [listen, ..] = free_addresses();
    let (mut first, _) = manager(home, &["--listen", &listen]);
    let mut worker = Daemon::start(
        "A",
        sealyard(home)
            .args(["worker", "run", "--name", "A", "--address", "127.0.0.1:0", "--worker-repo", "A"])
            .args(["--addpiece", "--precommit1", "--precommit2"]),
    );
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let known = stopped_pc1(home);
    let status = |number: &str| json(home, &["sectors", "status", number]);
    ask_until("a running PreCommit1", SEALING_MAX, || status("1"), runs);
    let made = json(home, &["backup", "saved"]);
    assert_eq!(made["miner"], "f01000");

    // After the backup: nobody who takes over can know of this one.
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let is_second = |found: &Vec<u32>| found.iter().any(|pid| *pid != known);
    let both = ask_until("sector 2's PreCommit1", SEALING_MAX, || executors(home, "pc1"), is_second);
    let unknown = both.into_iter().find(|pid| *pid != known).expect("just seen");
    signal(unknown, "-STOP");
    kill(&mut first);
    let lost = Instant::now();
    std::fs::rename(home.join(".sealyard"), home.join("lost")).expect("the repo is gone");

    let (mut second, _) = manager(home, &["--listen", &listen, "--from-backup", "saved"]);
    let gone = |found: &Vec<u32>| *found == [known];
    let charged = || has_its_pc1(home, ".sealyard") && runs(&status("1"));
    ask_until("the takeover", TAKEOVER_MAX.saturating_sub(lost.elapsed()), charged, |charged| *charged);
    ask_until("the end of what nobody knows", SEALING_MAX, || executors(home, "pc1"), gone);
    signal(known, "-CONT");
    let past = |status: &Value| attempts(status).last().is_some_and(|(state, _)| state == "done");
    let done = ask_until("PreCommit1's end", SEALING_MAX, || status("1"), past);
    assert_eq!(attempts(&done), [("done".to_owned(), "A".to_owned())], "not redone: {}", second.said());

    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let sectors = json(home, &["sectors", "list"]);
    let numbers: Vec<_> =
        sectors.as_array().expect("a list").iter().map(|row| row["sector"]["number"].clone()).collect();
    assert_eq!(numbers, [1, 1002], "a number that the lost manager gave out is not given out again");
}

#[test]
fn a_backup_follows_what_is_committed_and_a_damaged_one_is_passed_over() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home);
    let (mut running, _) = manager(home, &["--listen", "127.0.0.1:0"]);
    let follow = ["backup", "saved", "--follow", "--every", "1s"];
    let mut follower = Daemon::start("backup", sealyard(home).args(follow));
    let first = follower.expect("generation-");
    let busy = refused(sealyard(home).args(["backup", "saved"]), 1);
    assert!(busy.contains("MGR091"), "{busy}");
    ok(sealyard(home).args(["sectors", "pledge"]));
    let name = first.split(':').next().expect("a path").rsplit('/').next().expect("a name").to_owned();
    let newer = |found: &Value| found[0]["name"].as_str() != Some(&name) && found[0]["error"].is_null();
    ask_until("a second backup", SEALING_MAX, || json(home, &["backup", "saved", "--list"]), newer);
    drop(follower);
    kill(&mut running);

    let found = json(home, &["backup", "saved", "--list"]);
    let newest = home.join("saved").join(found[0]["name"].as_str().expect("a name"));
    let database = newest.join("state.db");
    let mut bytes = std::fs::read(&database).expect("the copy");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&database, bytes).expect("damage");
    let found = json(home, &["backup", "saved", "--list"]);
    assert!(found[0]["error"].as_str().expect("an error").contains("MGR093"), "{found:#}");

    let there = refused(sealyard(home).args(["run", "--from-backup", "saved"]), 3);
    assert!(there.contains("MGR040"), "{there}");
    let second = ["--repo", "second", "run", "--from-backup", "saved", "--listen", "127.0.0.1:0"];
    let mut second = Daemon::start("second", sealyard(home).args(second));
    second.expect("listening on");
    let said = second.said();
    assert!(said.contains("took over from the manager"), "{said}");
    let inside = refused(sealyard(home).args(["backup", ".sealyard/saved"]), 1);
    assert!(inside.contains("MGR094"), "{inside}");
    std::fs::create_dir(home.join("empty")).expect("a directory");
    let none = refused(sealyard(home).args(["--repo", "third", "run", "--from-backup", "empty"]), 3);
    assert!(none.contains("MGR092") && !home.join("third").exists(), "{none}");
}

/// Data that was taken and is written into no sector yet is in the backup, once however many generations have it, and the
/// manager that takes over writes it.
#[test]
fn data_that_waits_for_a_sector_is_in_the_backup() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home);
    let [listen, ..] = free_addresses();
    let (mut first, _) = manager(home, &["--listen", &listen]);
    let given: Vec<u8> = (0..5000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(home.join("piece.car"), &given).expect("a file");
    let taken = json(home, &["sectors", "add-piece", "piece.car"]);
    let staged = || std::fs::read_dir(home.join(".sealyard/staging")).expect("staging").count();
    assert_eq!((&taken["sector"], staged()), (&Value::from(1), 1), "no worker writes it");
    json(home, &["backup", "saved"]);
    json(home, &["backup", "saved"]);
    let listed = json(home, &["backup", "saved", "--list"]);
    let inodes: Vec<u64> = listed.as_array().expect("backups").iter().map(|row| inode(home, row)).collect();
    assert!(matches!(inodes[..], [newest, older] if newest == older), "it is copied once: {listed:#}");
    kill(&mut first);
    std::fs::rename(home.join(".sealyard"), home.join("lost")).expect("the repo is gone");

    let (_second, _) = manager(home, &["--listen", &listen, "--from-backup", "saved"]);
    assert_eq!(staged(), 1);
    let mut worker = Daemon::start(
        "A",
        sealyard(home)
            .args(["worker", "run", "--name", "A", "--address", "127.0.0.1:0", "--worker-repo", "A"])
            .arg("--addpiece"),
    );
    worker.expect("registered");
    let status = || json(home, &["sectors", "status", "1"]);
    let written = |status: &Value| status["state"] == "WaitDeals" && status["data"][0]["offset"] == 0;
    let status = ask_until("the data in the sector", SEALING_MAX, status, written);
    assert_eq!(status["data"][0]["cid"], taken["cid"], "{status:#}");
}

/// The one staged file of a listed generation.
fn inode(home: &Path, listed: &Value) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let dir = home.join("saved").join(listed["name"].as_str().expect("a name")).join("staging");
    let files: Vec<_> = std::fs::read_dir(dir).expect("staged data").collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].as_ref().expect("an entry").metadata().expect("a file").ino()
}

/// A worker that is told of these managers, best first.
fn worker_of(home: &Path, managers: &str, args: &[&str]) -> Daemon {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", "A", "--address", "127.0.0.1:0", "--worker-repo", "A"]);
    command.args(["--addpiece", "--precommit1", "--precommit2"]).args(args);
    Daemon::start("A", command.env("MINER_API_INFO", managers))
}

/// The manager dies while PreCommit1 runs, another one takes over at another address, and then the first is started again.
/// The worker is told of both, of a wrong one before them, and of a text that is no manager at all.
#[test]
fn a_worker_goes_to_the_manager_that_took_over_and_the_one_that_was_taken_over_stands_by() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    init(home);
    let [old, new, wrong] = free_addresses();
    let (mut first, _) = manager(home, &["--listen", &old]);
    let others = ["--repo", "others", "init", "--actor", "t01001", "--no-local-storage"];
    ok(sealyard(home).args(others));
    let (_others, _) = manager(home, &["--repo", "others", "--listen", &wrong]);

    let token = token(home);
    let managers = format!("{token}:http://{wrong},nonsense,http://{old},http://{new}");
    let mut worker = worker_of(home, &managers, &[]);
    worker.expect("a manager is left out");
    worker.expect(&format!("{wrong}/rpc/v0 is passed over"));
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let known = stopped_pc1(home);
    let status = |repo: &str| json(home, &["--repo", repo, "sectors", "status", "1"]);
    ask_until("a running PreCommit1", SEALING_MAX, || status(".sealyard"), runs);
    json(home, &["backup", "saved"]);
    kill(&mut first);

    let taking_over = ["--repo", "second", "--from-backup", "saved", "--listen", &new];
    let (mut second, _) = manager(home, &taking_over);
    let lives = |fleet: &Vec<(String, String)>| fleet.contains(&("A".to_owned(), "live".to_owned()));
    ask_until("the worker's move", TAKEOVER_MAX, || fleet(home, "second"), lives);
    ask_until("the attempt's adoption", TAKEOVER_MAX, || status("second"), runs);

    // It is started again by mistake. Nobody serves it, and it says why.
    let (mut again, _) = manager(home, &["--listen", &old]);
    again.expect("OVERTAKEN: MGR170");
    let info = json(home, &["info"]);
    let alert = &info["alerts"][0];
    assert_eq!((&alert["system"], &alert["subject"]), (&"manager".into(), &"overtaken".into()), "{info:#}");
    let refusal = refused(sealyard(home).args(["sectors", "pledge"]), 1);
    assert!(refusal.contains("MGR170"), "{refusal}");
    assert!(!lives(&fleet(home, ".sealyard")), "the worker serves the other one");
    signal(again.id(), "-TERM");
    assert_eq!(again.end(), Some(15), "{}", again.said());
    let (mut again, _) = manager(home, &["--listen", &old]);
    again.expect("OVERTAKEN: MGR170");

    assert_eq!(executors(home, "pc1"), [known], "it runs on");
    signal(known, "-CONT");
    let past = |status: &Value| attempts(status).last().is_some_and(|(state, _)| state == "done");
    let done = ask_until("PreCommit1's end", SEALING_MAX, || status("second"), past);
    assert_eq!(attempts(&done), [("done".to_owned(), "A".to_owned())], "not redone: {}", second.said());
}

/// Of two managers that were made from one backup, a worker serves the one that it met first, until it is told to leave it.
#[test]
fn of_two_managers_from_one_backup_the_second_gets_no_worker_of_the_first() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home);
    let (mut first, _) = manager(home, &["--listen", "127.0.0.1:0"]);
    let token = token(home);
    json(home, &["backup", "saved"]);
    kill(&mut first);
    let restored = |repo: &str| {
        let (manager, listen) =
            manager(home, &["--repo", repo, "--listen", "127.0.0.1:0", "--from-backup", "saved"]);
        (manager, format!("{token}:http://{listen}"))
    };
    let ((_one, one), (_other, other)) = (restored("one"), restored("other"));
    let mut worker = worker_of(home, &one, &[]);
    worker.expect("registered");
    signal(worker.id(), "-TERM");
    worker.end();

    let mut worker = worker_of(home, &other, &[]);
    let said = worker.expect("made from one backup");
    assert_eq!(worker.end(), Some(15), "{said}");
    let id = said.split("--leave-manager ").nth(1).expect("what to do").trim().to_owned();
    let mut worker = worker_of(home, &other, &["--leave-manager", &id]);
    worker.expect("registered");
}

/// Fetched over the network as the host does that is to take over; the fetching dies in the middle once.
#[test]
fn a_backup_is_fetched_from_another_host_as_a_whole_or_not_at_all() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home);
    let (mut running, listen) = manager(home, &["--listen", "127.0.0.1:0"]);
    std::fs::write(home.join("piece.car"), [7; 5000]).expect("a file");
    json(home, &["sectors", "add-piece", "piece.car"]);
    let info = format!("{}:http://{listen}", token(home));
    let fetch = |args: &[&str]| {
        let mut command = sealyard(home);
        command.args(["--repo", "elsewhere", "backup", "--from", "env", "fetched"]).args(args);
        command.env("MINER_API_INFO", &info);
        command
    };
    let listed = || json(home, &["backup", "fetched", "--list"]);

    let died = home.join("died");
    let mut dying = Daemon::start(
        "backup that dies",
        fetch(&[]).env("SEALYARD_CRASH_AT", format!("backup.fetched@{}", died.display())),
    );
    assert_eq!(dying.end(), None, "killed: {}", dying.said());
    assert!(died.exists());
    assert_eq!(listed(), serde_json::json!([]), "half a backup is none");
    let none = refused(sealyard(home).args(["--repo", "third", "run", "--from-backup", "fetched"]), 3);
    assert!(none.contains("MGR092"), "{none}");
    let parts = std::fs::read_dir(home.join("fetched/.fetching")).expect("what came").count();
    assert_eq!(parts, 2, "the manifest and one file");

    let mut follower = Daemon::start("backup", &mut fetch(&["--follow", "--every", "1s"]));
    let first = follower.expect("generation-");
    let name = first.split(':').next().expect("a path").rsplit('/').next().expect("a name").to_owned();
    ok(sealyard(home).args(["sectors", "pledge"]));
    let newer = |found: &Value| found[0]["name"].as_str() != Some(&name) && found[0]["error"].is_null();
    let found = ask_until("a second backup", SEALING_MAX, listed, newer);
    assert!(found[1]["error"].is_null() && found[0]["last_event"].as_u64() > found[1]["last_event"].as_u64());
    drop(follower);
    let read = ok(sealyard(home).args(["auth", "create-token", "--perm", "read"]));
    let info = format!("{}:http://{listen}", read.trim());
    let weak = refused(fetch(&[]).env("MINER_API_INFO", info), 6);
    assert!(weak.contains("MGR172"), "{weak}");
    kill(&mut running);

    let staged = |repo: &str| std::fs::read_dir(home.join(repo).join("staging")).expect("staging").count();
    let (_second, _) =
        manager(home, &["--repo", "second", "--listen", "127.0.0.1:0", "--from-backup", "fetched"]);
    assert_eq!(staged("second"), 1, "data that waits came along");
    let sectors = json(home, &["--repo", "second", "sectors", "list"]);
    assert_eq!(sectors.as_array().map(Vec::len), Some(2), "{sectors:#}");
}

/// It never died: it hears of the other one from the worker that it goes on calling.
#[test]
fn a_manager_that_was_only_cut_off_stands_by_when_it_is_back() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home);
    let [old, new, _] = free_addresses();
    let (mut first, _) = manager(home, &["--listen", &old]);
    let mut worker = worker_of(home, &format!("{}:http://{old},http://{new}", token(home)), &[]);
    worker.expect("registered");
    json(home, &["backup", "saved"]);
    signal(first.id(), "-STOP");
    let (_second, _) = manager(home, &["--repo", "second", "--listen", &new, "--from-backup", "saved"]);
    let lives = |fleet: &Vec<(String, String)>| fleet.contains(&("A".to_owned(), "live".to_owned()));
    ask_until("the worker's move", TAKEOVER_MAX, || fleet(home, "second"), lives);
    signal(first.id(), "-CONT");
    first.expect("OVERTAKEN: MGR170");
    let refusal = refused(sealyard(home).args(["sectors", "pledge"]), 1);
    assert!(refusal.contains("MGR170"), "{refusal}");
    assert!(lives(&fleet(home, "second")), "the worker stays where it is");
}
