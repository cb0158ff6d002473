//! The machine of a manager is lost while a real PreCommit1 of 512 MiB runs on a worker: the manager that another host starts
//! from its backup has the worker within a minute, and the work goes on as the same attempt.

#![allow(clippy::print_stdout, reason = "a test tells the figures of this machine")]

mod system;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use system::addresses::free_addresses;
use system::managers::{attempts, has_its_pc1, manager, runs, token};
use system::{COMMAND_MAX, Daemon, ask_until, executors, json, kill, labelling, life, ok, sealyard};

/// From the manager's death until another one has its worker and holds what runs there.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);
/// Labelling takes three minutes of an idle core.
const PC1_MAX: Duration = Duration::from_secs(1800);
/// Set: PreCommit1 is waited for, which takes minutes. Otherwise it is aborted once it was seen to go on.
const WHOLE: &str = "SEALYARD_TAKEOVER_WHOLE";

/// What the manager in the default repo has committed.
fn last_event(home: &Path) -> u64 {
    let database = rusqlite::Connection::open(home.join(".sealyard/state.db")).expect("the state");
    let last: i64 = database.query_row("SELECT max(seq) FROM event", [], |row| row.get(0)).expect("an event");
    last.unsigned_abs()
}

#[test]
fn a_backup_takes_over_within_a_minute_while_a_pc1_of_512_mib_runs_on() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    labelling::init(home);
    let [old, new, _] = free_addresses();
    let (mut first, _) = manager(home, &["--listen", &old]);
    let token = token(home);
    // As on the host that is to take over: over the network, into another directory.
    let follow = ["--repo", "elsewhere", "backup", "--from", "env", "fetched", "--follow", "--every", "1s"];
    let mut follower = Daemon::start(
        "backup",
        sealyard(home).args(follow).env("MINER_API_INFO", format!("{token}:http://{old}")),
    );
    let managers = format!("{token}:http://{old},http://{new}");
    let mut worker = Daemon::start("A", labelling::worker(home).env("MINER_API_INFO", managers));
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let (pid, _) = labelling::at_work(home);
    let attempt = labelling::attempt(home, ".sealyard");
    assert!(attempt.ends_with(".1"), "{attempt} is the first");
    let status = |repo: &str| json(home, &["--repo", repo, "sectors", "status", "1"]);
    ask_until("a running PreCommit1", COMMAND_MAX, || status(".sealyard"), runs);
    let known = last_event(home);
    let newest = || json(home, &["backup", "fetched", "--list"])[0]["last_event"].as_u64();
    ask_until("a backup that knows of it", COMMAND_MAX, newest, |newest| *newest >= Some(known));

    let (began, before) = life(pid);
    kill(&mut first);
    let lost = Instant::now();
    kill(&mut follower);
    fs::rename(home.join(".sealyard"), home.join("lost")).expect("the machine is gone");
    let (mut second, _) = manager(home, &["--repo", "second", "--from-backup", "fetched", "--listen", &new]);
    let held = || has_its_pc1(home, "second") && runs(&status("second"));
    ask_until("the takeover", TAKEOVER_MAX.saturating_sub(lost.elapsed()), held, |held| *held);
    let took = lost.elapsed();

    let (began_then, then) = life(pid);
    println!(
        "takeover while a PC1 of 512 MiB runs: {took:.1?}, in which it had {} ticks on processors; limit {TAKEOVER_MAX:?}: \
         reached",
        then - before
    );
    assert_eq!((executors(home, "pc1"), began_then), (vec![pid], began), "the process is the same");
    assert_eq!(labelling::attempt(home, "second"), attempt, "and so is the attempt");
    ask_until("its going on", COMMAND_MAX, || life(pid).1, |now| *now > then);

    let end = if std::env::var_os(WHOLE).is_some() {
        let done = |status: &_| attempts(status).last().is_some_and(|(state, _)| state == "done");
        ask_until("PreCommit1's end", PC1_MAX, || status("second"), done);
        "done"
    } else {
        let abort = ["sealing", "abort", &attempt, "--reason", "it was seen to go on"];
        ok(sealyard(home).args(["--repo", "second"]).args(abort));
        assert!(executors(home, "pc1").is_empty(), "the manager that took over has its end in its hands");
        "failed"
    };
    let ends = attempts(&status("second"));
    assert_eq!(ends, [(end.to_owned(), "A".to_owned())], "it was not redone: {}", second.said());
}
