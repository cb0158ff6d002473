//! Executors that were started ahead of their calls, by real workers and with real proofs: a call is done by one as by a process
//! of its own, and where one is of no use it is done by a process of its own.

mod system;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json as order_of};
use system::spares::{self, ready};
use system::trio::{NAMES, SEALING_MAX, TASKS, Trio, ends_of};
use system::{COMMAND_MAX, ask_until, executors, json, ok, sealyard, signal, text};

/// A directory, and in it a manager and two workers, of which B does PreCommit2 and Commit1.
fn trio() -> (tempfile::TempDir, Trio) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().canonicalize().expect("a path without links");
    let mut trio = Trio::new(&home, Vec::new());
    trio.init();
    NAMES.into_iter().for_each(|name| trio.start(name, None));
    (dir, trio)
}

/// Starts B anew with these settings.
fn configure(trio: &mut Trio, settings: &str) {
    fs::write(trio.home.join("B/config.toml"), settings).expect("config.toml");
    trio.kill("B");
    trio.start("B", None);
}

/// Waits until PreCommit2 is done by one of these processes, and gives it.
fn ordered(home: &Path, spares: &[u32]) -> u32 {
    let at_work = ask_until("PC2 at work", SEALING_MAX, || executors(home, "pc2"), |found| !found.is_empty());
    assert!(at_work.len() == 1 && spares.contains(&at_work[0]), "{at_work:?} is one of {spares:?}");
    at_work[0]
}

fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with(['Z', 'X']))
}

fn all_gone(what: &str, pids: &[u32]) {
    ask_until(what, COMMAND_MAX, || pids.iter().all(|pid| is_gone(*pid)), |gone| *gone);
}

#[test]
fn a_spare_becomes_the_executor_of_its_call_and_is_aborted_as_one() {
    let (_dir, mut trio) = trio();
    let home = trio.home.clone();
    let mark = home.join("stands");
    let wish = format!("[executor.pc2.env]\nSEALYARD_STOP_AT = \"executor.begun@{}\"\n", mark.display());
    configure(&mut trio, &wish);
    let spares = ready(&home, "B");
    ok(&mut trio.pledge());
    // That it stands there shows that it has the variables of its task.
    ask_until("it stands still", SEALING_MAX, || mark.exists(), |there| *there);
    let pid = ordered(&home, &spares);

    let process = PathBuf::from(format!("/proc/{pid}"));
    let link =
        |name: &str| fs::read_link(process.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let dir = link("cwd");
    assert_eq!(dir.parent(), Some(home.join("B/calls").as_path()));
    let call = dir.file_name().expect("a call").to_string_lossy().into_owned();
    let environment = fs::read(process.join("environ")).expect("its environment");
    let entry = format!("SEALYARD_CALL={call}");
    assert!(environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes()), "its call");
    let line = fs::read(process.join("cmdline")).expect("its command line");
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty()).collect();
    let (input, output) = (dir.join("request.json"), dir.join("report.json"));
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let expected = ["exec", "pc2", "--input", &path(&input), "--output", &path(&output)];
    assert_eq!(words, expected.map(str::as_bytes));
    assert_eq!((link("fd/1"), link("fd/2")), (dir.join("log"), dir.join("log")));
    assert_eq!(link("fd/0"), PathBuf::from("/dev/null"));

    let jobs = json(&home, &["sealing", "jobs"]);
    let attempt = &jobs[0]["attempt"];
    let attempt = format!("{}.{}", attempt["task"], attempt["attempt"]);
    ok(sealyard(&home).args(["sealing", "abort", &attempt, "--reason", "seen enough"]));
    assert!(is_gone(pid), "it is gone when its abort is answered");
    ok(sealyard(&home).args(["worker", "stop", "--now", "--worker-repo", "B"]));
    all_gone("those of before are gone", &spares);
    // A stop is answered when nobody is served any more.
    assert_ne!(trio.daemon("B").end(), None, "it ends by itself");
    assert_eq!(spares::waiting(&home, "B"), Vec::<u32>::new(), "and leaves none");
}

#[test]
fn spares_that_do_not_answer_are_done_without_and_replaced() {
    let (_dir, trio) = trio();
    let first = ready(&trio.home, "B");
    first.iter().for_each(|pid| signal(*pid, "-STOP"));
    ok(&mut trio.pledge());
    let status = trio.sealed(1, "spares that stand still");
    for (task, _) in TASKS {
        assert_eq!(ends_of(&status, task, "spares that stand still"), ["done"]);
    }
    all_gone("those that did not answer", &first);
    let second = ready(&trio.home, "B");
    second.iter().for_each(|pid| signal(*pid, "-9"));
    let third = ready_again(&trio.home, &second);
    assert!(third.iter().all(|pid| !first.contains(pid)), "new ones: {first:?} {second:?} {third:?}");
}

/// Waits for spares that are none of these.
fn ready_again(home: &Path, old: &[u32]) -> Vec<u32> {
    let are_new = |found: &Vec<u32>| found.len() == 2 && found.iter().all(|pid| !old.contains(pid));
    ask_until("others in their place", COMMAND_MAX, || spares::waiting(home, "B"), are_new)
}

#[test]
fn a_call_of_a_spare_outlives_its_worker_and_the_other_spare_does_not() {
    let (_dir, mut trio) = trio();
    let home = trio.home.clone();
    // Long enough to be met at work.
    configure(&mut trio, "[executor.pc2.env]\nSEALYARD_SLOW_AT = \"executor.begun:3000\"\n");
    let spares = ready(&home, "B");
    ok(&mut trio.pledge());
    let pid = ordered(&home, &spares);
    signal(pid, "-STOP");
    let other: Vec<u32> = spares.iter().copied().filter(|spare| *spare != pid).collect();
    // Nobody tells them that their worker stands still, nor need they know.
    signal(trio.daemon("B").id(), "-STOP");
    assert!(!is_gone(other[0]));
    trio.kill("B");
    all_gone("the spare without a call", &other);
    assert!(!is_gone(pid));
    trio.start("B", None);
    let said = trio.daemon("B").expect("a call of an earlier life goes on");
    assert!(said.contains(&pid.to_string()), "{said}");
    signal(pid, "-CONT");
    let status = trio.sealed(1, "a worker killed beside its executor");
    for (task, _) in TASKS {
        assert_eq!(ends_of(&status, task, "a worker killed beside its executor"), ["done"]);
    }
}

/// The spare that works in a call's directory, and whether the kernel shows that call for it.
fn in_a_calls_directory(home: &Path, spares: &[u32]) -> Option<(u32, bool)> {
    spares.iter().find_map(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let dir = fs::read_link(process.join("cwd")).ok()?;
        let call = dir.strip_prefix(home.join("B/calls")).ok()?.to_str().filter(|call| !call.is_empty())?;
        let entry = format!("SEALYARD_CALL={call}");
        let environment = fs::read(process.join("environ")).ok()?;
        Some((*pid, environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())))
    })
}

#[test]
fn a_spare_that_has_not_answered_when_its_worker_dies_is_taken_over_by_its_name_or_ended() {
    let (_dir, mut trio) = trio();
    let home = trio.home.clone();
    for (number, (point, is_named)) in (1..).zip([("executor.ordered", false), ("executor.named", true)]) {
        // Long enough to be met there.
        let slow = format!("[executor.pc2.env]\nSEALYARD_SLOW_AT = \"{point}:5000\"\n");
        fs::write(home.join("B/config.toml"), slow).expect("config.toml");
        trio.kill("B");
        let stands = home.join(format!("stands-{number}"));
        trio.start_to_stand("B", &format!("worker.ordered@{}", stands.display()));
        let spares = ready(&home, "B");
        ok(&mut trio.pledge());
        ask_until("the worker has ordered one", SEALING_MAX, || stands.exists(), |there| *there);
        let come = || in_a_calls_directory(&home, &spares).filter(|(_, named)| *named == is_named);
        let (pid, _) = ask_until(point, SEALING_MAX, come, Option::is_some).expect("one of them");
        signal(pid, "-STOP");
        assert_eq!(in_a_calls_directory(&home, &spares), Some((pid, is_named)), "{point}");
        let answers = fs::read_link(format!("/proc/{pid}/fd/1")).expect("its standard output");
        assert!(answers.to_string_lossy().starts_with("pipe:"), "{point}: it has not begun: {answers:?}");
        trio.kill("B");
        trio.start("B", None);
        if is_named {
            let said = trio.daemon("B").expect("a call of an earlier life goes on");
            assert!(said.contains(&pid.to_string()), "{point}: {said}");
            signal(pid, "-CONT");
        } else {
            all_gone("one without a name", &[pid]);
        }
        let status = trio.sealed(number, point);
        for (task, _) in TASKS {
            let ends = ends_of(&status, task, point);
            assert!(!is_named || ends == ["done"], "{point}: {task}: {ends:?}");
        }
    }
}

#[test]
fn a_worker_that_may_not_have_spares_has_none_and_seals() {
    let (_dir, mut trio) = trio();
    ready(&trio.home, "B");
    configure(&mut trio, "[executor]\nspare = false\n");
    ok(&mut trio.pledge());
    trio.sealed(1, "a start without spares");
    let info = ok(sealyard(&trio.home).args(["worker", "info", "--worker-repo", "B"]));
    assert!(info.contains("spare executors=none"), "{info}");
    assert_eq!(spares::waiting(&trio.home, "B"), Vec::<u32>::new());
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
const CALL: &str = "4f9c9a8e-6a77-4a0e-9d0b-0a52b1a6c3d1";

/// What a process that waits says to an order, and how it ends. It works in `home` and has `nobody` for its call until then.
fn told(home: &Path, nobody: &str, order: &str) -> Output {
    let mut waiting = sealyard(home);
    let path = |name: &str| home.join("calls").join(NOBODY).join(name);
    waiting.args(["exec", "spare", "--input"]).arg(path("request.json"));
    waiting.arg("--output").arg(path("report.json")).env("SEALYARD_CALL", nobody).current_dir(home);
    waiting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut waiting = waiting.spawn().expect("it starts");
    let (mut orders, mut answers) = waiting.stdin.take().zip(waiting.stdout.take()).expect("pipes");
    // One that has ended already reads nothing.
    let _ = orders.write_all(order.as_bytes());
    drop(orders);
    let status =
        ask_until("it ends", COMMAND_MAX, || waiting.try_wait().expect("it is ours"), Option::is_some);
    let mut stdout = Vec::new();
    answers.read_to_end(&mut stdout).expect("what it said");
    Output { status: status.expect("it has ended"), stdout, stderr: Vec::new() }
}

#[test]
fn an_order_that_does_not_hold_begins_nothing_and_is_answered_with_why() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let dir = home.join("calls").join(CALL);
    fs::create_dir_all(&dir).expect("the call's directory");
    let with = |name: &str, value: Value| {
        let worker = std::process::id();
        let mut order = order_of!({
            "version": 1, "worker": worker, "call": CALL, "task": "pc2", "dir": dir, "environment": []
        });
        order[name] = value;
        order.to_string()
    };
    let whole = with("task", "pc2".into());
    for (order, why) in [
        (with("worker", 1.into()), "the worker with process id 1 has ended; nothing is begun"),
        (whole[..whole.len() / 2].to_owned(), "the order is none that this program understands"),
        (with("version", 2.into()), "the order's version is 2"),
        (with("limit", 1.into()), "the order is none that this program understands"),
        (with("task", "scrub".into()), "task scrub is done by no process that was started ahead"),
        (with("dir", "/nowhere/at/all".into()), "entering the call's directory"),
        (with("task", "longer than spare".into()), "the command line is shorter than the call's"),
        // There is no log yet.
        (whole.clone(), "opening the call's log"),
    ] {
        let answer = told(&home, NOBODY, &order);
        let said = text(&answer.stdout);
        assert!(said.starts_with("rf") && said.contains(why), "{said:?} tells {why:?}");
        assert_eq!(answer.status.code(), Some(1), "{why}");
        assert_eq!(fs::read_dir(&dir).expect("the call's directory").count(), 0, "{why}: nothing is begun");
    }
    let unnamed = text(&told(&home, "somebody", &whole).stdout);
    assert!(
        unnamed.starts_with('f') && unnamed.contains("the environment has no place for it"),
        "{unnamed:?}"
    );
    let unneeded = told(&home, NOBODY, "");
    assert_eq!((text(&unneeded.stdout).as_str(), unneeded.status.code()), ("r", Some(0)));

    fs::write(dir.join("log"), "").expect("a log");
    // The same order, with which nothing is amiss now: there is no request, which the report says.
    let begun = told(&home, NOBODY, &whole);
    assert_eq!((text(&begun.stdout).as_str(), begun.status.code()), ("rb", Some(2)));
    assert!(dir.join("report.json").exists());
}
