//! `sealing why` on a live manager with real processes: each way in which a task can be kept from running is brought about,
//! and told with numbers and with what would change it, as text and as JSON.

mod lotus;
mod system;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lotus::worker::{LotusWorker, Script, Seen};
use serde_json::Value;
use system::{Daemon, ask_until, executors, ok, refused, sealyard};

/// An 8 MiB sector is at PreCommit2 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// A manager of 8 MiB sectors, whose PreCommit1 lasts long enough to be caught.
struct Yard {
    home: tempfile::TempDir,
    workers: Vec<Daemon>,
    stopped: Vec<u32>,
    _manager: Daemon,
}

impl Yard {
    fn new(size: &str, config: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path();
        ok(sealyard(at).args(["init", "--actor", "t01000", "--sector-size", size, "--no-local-storage"]));
        std::fs::write(at.join(".sealyard/config.toml"), format!("{NO_LOCAL_TASKS}{config}"))
            .expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(at).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        Self { workers: Vec::new(), stopped: Vec::new(), _manager: manager, home }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// A worker with these arguments and variables.
    fn worker(&mut self, name: &str, args: &[&str], variables: &[(&str, String)]) {
        let mut command = sealyard(self.home());
        command.args(["worker", "run", "--name", name, "--address", "127.0.0.1:0", "--worker-repo", name]);
        command.args(args).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/").envs(variables.iter().cloned());
        let mut worker = Daemon::start(name, &mut command);
        worker.expect("registered");
        self.workers.push(worker);
    }

    fn pledge(&self) {
        ok(sealyard(self.home()).args(["sectors", "pledge"]));
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(sealyard(self.home()).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// RAM of this machine in bytes, as workers report it.
    fn ram(&self) -> u64 {
        let workers = self.json(&["workers", "list"]);
        workers[0]["ram"][2].as_u64().unwrap_or_else(|| panic!("{workers:#}"))
    }

    /// The explanation of a sector once `worker` has this obstacle for it, and the obstacle.
    fn obstacle(&self, sector: &str, worker: &str, obstacle: &str) -> (Value, Value) {
        let told = ask_until(
            &format!("{obstacle} of sector {sector} on {worker}"),
            SEALING_MAX,
            || self.json(&["sealing", "why", sector]),
            |told| find(told, worker, obstacle).is_some(),
        );
        let found = find(&told, worker, obstacle).expect("just found");
        (told, found)
    }

    fn why(&self, what: &str) -> String {
        ok(sealyard(self.home()).args(["sealing", "why", what]))
    }

    /// Stops the PreCommit1 of a sector in the middle: it holds all that it was given, for as long as the test wants.
    fn hold_pc1(&mut self, sector: u64) {
        let home = self.home().to_owned();
        let words = format!("s-t01000-{sector}\"");
        let of_sector = |pid: &u32| {
            request_of(Path::new(&format!("/proc/{pid}"))).is_some_and(|text| text.contains(&words))
        };
        let running = || executors(&home, "pc1").into_iter().filter(of_sector).collect::<Vec<_>>();
        let pid = ask_until("PreCommit1", SEALING_MAX, running, |found| !found.is_empty())[0];
        ok(Command::new("kill").args(["-STOP", &pid.to_string()]));
        self.stopped.push(pid);
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for pid in &self.stopped {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// The obstacle of this kind that a worker has for the task that was asked about.
fn find(told: &Value, worker: &str, obstacle: &str) -> Option<Value> {
    let workers = told["task"]["workers"].as_array()?;
    let found = workers.iter().find(|it| it["name"] == worker)?["obstacles"].as_array()?;
    found.iter().find(|it| it["obstacle"] == obstacle).cloned()
}

/// The request that an executor reads.
fn request_of(proc: &Path) -> Option<String> {
    let line = std::fs::read(proc.join("cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let at = words.iter().position(|word| word == "--input")?;
    let cwd = std::fs::read_link(proc.join("cwd")).ok()?;
    std::fs::read_to_string(cwd.join(words.get(at + 1)?.as_ref())).ok()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn no_worker_offers_the_task() {
    let mut yard = Yard::new("2KiB", "");
    yard.worker("A", &["--precommit1"], &[]);
    yard.pledge();
    let (told, found) = yard.obstacle("1", "A", "not_offered");
    assert_eq!(
        (&told["waits_for"], &found["task"]),
        (&Value::from("worker"), &Value::from("seal/v0/addpiece"))
    );
    assert!(text(&told["change"]).contains("no worker offers AP: start one with --addpiece"), "{told:#}");
    let said = yard.why("f01000/1");
    assert!(said.contains("AP of sector 1") && said.contains("does not offer AP"), "{said}");
    assert!(said.contains("What would change it: no worker offers AP"), "{said}");

    let line = refused(sealyard(yard.home()).args(["sealing", "why", "77"]), 14);
    assert!(line.contains("nothing is known of 77"), "{line}");
    let line = refused(sealyard(yard.home()).args(["sealing", "why", "seven"]), 2);
    assert!(line.contains("\"seven\"") && line.contains("task:5"), "{line}");
}

#[test]
fn not_enough_memory() {
    let mut yard = Yard::new("8MiB", "");
    let most = yard.ram() / 5 * 3;
    let variables = [("PC1_8M_MIN_MEMORY", most.to_string())];
    yard.worker("A", &["--addpiece", "--precommit1"], &variables);
    yard.pledge();
    yard.hold_pc1(1);
    yard.pledge();
    let (told, found) = yard.obstacle("2", "A", "short");
    assert_eq!((&found["resource"], number(&found["needs"])), (&Value::from("memory"), most), "{told:#}");
    assert!(number(&found["free"]) < most && number(&found["total"]) >= most, "{found:#}");
    assert_eq!(found["relief"]["kind"], "ends", "{found:#}");
    assert_eq!(found["relief"]["task"]["sector"]["number"], 1, "{found:#}");
    assert!(text(&found["change"]).contains("when PC1 of sector 1 ends"), "{found:#}");
    let said = yard.why("2");
    assert!(said.contains("of memory,") && said.contains(" free of "), "{said}");
    assert!(said.contains("when PC1 of sector 1 ends"), "{said}");

    // What runs says so, and until when.
    let running = yard.json(&["sealing", "why", "1"]);
    assert_eq!((&running["waits_for"], &running["task"]["worker"]), (&"running".into(), &"A".into()));
    let call = text(&running["task"]["call"]);
    assert!(yard.why(call).contains("runs on A"), "{running:#}");
    let diagnosis = ok(sealyard(yard.home()).args(["sealing", "sched-diag"]));
    assert!(diagnosis.contains("running: PC1 of sector 1") && diagnosis.contains("short of"), "{diagnosis}");
}

#[test]
fn the_cap_is_reached() {
    let mut yard = Yard::new("8MiB", "");
    let variables = [("PC1_8M_MAX_CONCURRENT", "1".to_owned())];
    yard.worker("A", &["--addpiece", "--precommit1"], &variables);
    yard.pledge();
    yard.hold_pc1(1);
    yard.pledge();
    let (_, found) = yard.obstacle("2", "A", "short");
    let expected = (&"concurrency".into(), &1.into(), &1.into());
    assert_eq!((&found["resource"], &found["running"], &found["most"]), expected, "{found:#}");
    let change = text(&found["change"]);
    assert!(change.contains("when PC1 of sector 1 ends"), "{change}");
    assert!(
        change.contains("`sealyard workers caps ") && change.contains("PC1_8M_MAX_CONCURRENT"),
        "{change}"
    );
    assert!(yard.why("2").contains("runs 1 of this type, at most 1 may"));

    // The same by an operator's word, for two types together.
    ok(sealyard(yard.home()).args(["workers", "caps", "A", "PC1+PC2=1"]));
    let (_, found) = yard.obstacle("2", "A", "capped");
    assert_eq!((&found["running"], &found["most"]), (&1.into(), &1.into()), "{found:#}");
    assert!(text(&found["change"]).contains("`sealyard workers caps A"), "{found:#}");
}

#[test]
fn the_worker_is_cordoned() {
    let mut yard = Yard::new("2KiB", "");
    yard.worker("A", &["--addpiece", "--precommit1"], &[]);
    for (command, obstacle) in [("cordon", "cordoned"), ("drain", "draining"), ("disable", "disabled")] {
        ok(sealyard(yard.home()).args(["workers", command, "A"]));
        if command == "cordon" {
            yard.pledge();
        }
        let (told, found) = yard.obstacle("1", "A", obstacle);
        assert!(text(&told["summary"]).contains("AP of sector 1"), "{told:#}");
        assert_eq!(found["change"], "`sealyard workers enable A` opens it again", "{found:#}");
        assert!(yard.why("1").contains(&format!("is {obstacle}")), "{obstacle}");
    }
    ok(sealyard(yard.home()).args(["workers", "enable", "A"]));
    let is_past = |told: &Value| told["sector_state"] == "PreCommit2";
    ask_until("PreCommit2", SEALING_MAX, || yard.json(&["sealing", "why", "1"]), is_past);
}

#[test]
fn a_lock_is_busy() {
    let yard = Yard::new("2KiB", "");
    let said = ok(sealyard(yard.home()).args(["auth", "api-info", "--perm", "admin"]));
    let api_info = said.trim().strip_prefix("MINER_API_INFO=").expect("an API info").to_owned();
    let script = Script { holds_back: Some("SealPreCommit1"), ..Script::default() };
    let tasks = ["seal/v0/addpiece", "seal/v0/precommit/1"];
    let worker = LotusWorker::join(yard.home(), &api_info, &tasks, script);
    yard.pledge();
    worker.trace().first("PreCommit1's end", SEALING_MAX, |seen| matches!(seen, Seen::HeldBack));
    let running = yard.json(&["sealing", "why", "1"]);
    // A Lotus worker cannot be told to stop: it keeps what it holds, and the sector's next try finds it locked.
    let call = text(&running["task"]["call"]).to_owned();
    ok(sealyard(yard.home()).args(["sealing", "abort", &call]));
    ok(sealyard(yard.home()).args(["sectors", "retry", "1"]));
    let told = ask_until(
        "the lock",
        SEALING_MAX,
        || yard.json(&["sealing", "why", "1"]),
        |told| told["waits_for"] == "lock",
    );
    let holder = &told["task"]["scheduler"]["whereabouts"]["held_by"][0];
    assert_eq!(
        (&holder["name"]["sector"]["number"], &holder["host"]),
        (&1.into(), &worker.inner.name.as_str().into())
    );
    assert!(text(&told["change"]).contains("it can start when PC1 of sector 1 has ended"), "{told:#}");
    let said = yard.why("1");
    assert!(said.contains("locked by PC1 of sector 1 on lotus-stand-in"), "{said}");
    assert!(yard.why(&call).contains("is over since"), "the call that was given up is told of as well");

    worker.let_go();
    let has_it = |told: &Value| told["waits_for"] != "lock";
    ask_until("the lock's end", SEALING_MAX, || yard.json(&["sealing", "why", "1"]), has_it);
}

#[test]
fn no_path_has_the_space() {
    let mut yard = Yard::new("2KiB", "");
    yard.worker("A", &["--addpiece", "--precommit1", "--no-local-storage"], &[]);
    yard.pledge();
    let (_, found) = yard.obstacle("1", "A", "no_room");
    assert!(found["most_free"].is_null(), "{found:#}");
    assert!(text(&found["change"]).contains("sealyard storage attach --init --seal"), "{found:#}");

    let mut attach = sealyard(yard.home());
    attach.args([
        "storage",
        "attach",
        "--init",
        "--seal",
        "--max-storage",
        "1KiB",
        "--worker-repo",
        "A",
        "small",
    ]);
    std::fs::create_dir(yard.home().join("small")).expect("a directory");
    ok(&mut attach);
    let told = ask_until(
        "the small path",
        SEALING_MAX,
        || yard.json(&["sealing", "why", "1"]),
        |told| find(told, "A", "no_room").is_some_and(|found| found["most_free"].is_u64()),
    );
    let found = find(&told, "A", "no_room").expect("just found");
    // The path's own sectorstore.json counts as well.
    let free = number(&found["most_free"]);
    assert!(number(&found["needs"]) == 2048 && free <= 1024, "{found:#}");
    let change = text(&found["change"]);
    let lacking = format!("free {} bytes there", 2048 - free);
    assert!(change.contains(&lacking) && change.contains("MaxStorage"), "{change}");
    let said = yard.why("1");
    assert!(said.contains("needs 2 KiB in a sealing path for the unsealed file, at most"), "{said}");
}

#[test]
fn another_task_s_reservation_is_ahead() {
    let mut yard = Yard::new("8MiB", "[Scheduler]\nWaitLimit = \"1s\"\n");
    let part = |tenths: u64| (yard.ram() / 10 * tenths).to_string();
    let variables = [("PC1_8M_MIN_MEMORY", part(3)), ("PC2_8M_MIN_MEMORY", part(8))];
    yard.worker("A", &["--addpiece", "--precommit1", "--precommit2"], &variables);
    yard.pledge();
    yard.hold_pc1(1);
    // Its PreCommit1 fits beside the one that is held, its PreCommit2 does not, and is due after a second.
    yard.pledge();
    let due = ask_until(
        "the reservation",
        SEALING_MAX,
        || yard.json(&["sealing", "why", "2"]),
        |told| told["waits_for"] == "reserved",
    );
    assert!(
        text(&due["summary"]).contains("PC2 of sector 2") && text(&due["summary"]).contains("is kept for it")
    );
    // This one's PreCommit1 would fit, and would delay what is due.
    yard.pledge();
    let (told, found) = yard.obstacle("3", "A", "reserved_for");
    assert!(text(&found["text"]).contains("is kept for PC2 of sector 2"), "{told:#}");
    assert!(text(&found["change"]).contains("PC2 of sector 2 should start there"), "{found:#}");
    assert!(number(&found["start_by"]) >= number(&found["made_at"]), "{found:#}");
    assert!(yard.why("3").contains("is kept for PC2 of sector 2"));
    let diagnosis = ok(sealyard(yard.home()).args(["sealing", "sched-diag"]));
    assert!(diagnosis.contains("A is kept for PC2 of sector 2"), "{diagnosis}");
}

#[test]
fn parameters_are_missing() {
    let mut yard = Yard::new("2KiB", "");
    yard.worker("A", &["--addpiece", "--precommit1", "--precommit2"], &[]);
    let nowhere = yard.home().join("none").display().to_string();
    let variables =
        [("SEALYARD_INSECURE_PARAMETERS", nowhere.clone()), ("FIL_PROOFS_PARAMETER_CACHE", nowhere)];
    yard.worker("B", &["--commit"], &variables);
    yard.pledge();
    let (told, found) = yard.obstacle("1", "B", "not_yet");
    assert!(text(&told["summary"]).contains("C2 of sector 1"), "{told:#}");
    assert!(text(&found["reason"]).contains("waiting for parameters"), "{found:#}");
    assert!(text(&found["change"]).contains("`sealyard params fetch 2KiB`"), "{found:#}");
    let said = yard.why("1");
    assert!(said.contains("does not yet offer C2: waiting for parameters"), "{said}");
}
