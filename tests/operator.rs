//! What an operator's shell, scripts and signals meet: settings that are in force, parameters that are missing, pipes
//! that close, processes that are interrupted or killed.

mod system;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use system::{Daemon, ask_until, ok, refused, sealyard, snapshot};

/// Seconds pass; a loaded machine gets more.
const EVENT_MAX: Duration = Duration::from_secs(60);

fn manager(home: &Path) -> Daemon {
    ok(sealyard(home).args(["init", "--actor", "t01000"]));
    let config = "[Storage]\nAllowCommit = false\n";
    std::fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    manager
}

fn worker_command(home: &Path, name: &str) -> Command {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--worker-repo", name, "--address", "127.0.0.1:0"]);
    command
}

/// No parameters anywhere, and no way to get any.
fn without_parameters<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command
        .env("SEALYARD_INSECURE_PARAMETERS", home.join("no-insecure"))
        .env("FIL_PROOFS_PARAMETER_CACHE", home.join("no-published"))
        .env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/")
}

#[test]
fn worker_info_tells_the_settings_of_the_worker_not_of_the_shell() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _manager = manager(home);
    let mut command = worker_command(home, "w");
    let mut worker =
        Daemon::start("worker", command.args(["--precommit1"]).env("FIL_PROOFS_VERIFY_CACHE", "true"));
    worker.expect("registered");
    drop(worker);
    let override_pc1 = "[executor.pc1.env]\nRAYON_NUM_THREADS = \"3\"\n";
    std::fs::write(home.join("w/config.toml"), override_pc1).expect("config.toml");
    let mut worker = Daemon::start("worker", command.env("FIL_PROOFS_VERIFY_CACHE", "true"));
    worker.expect("registered");
    let mut asked = sealyard(home);
    asked.args(["worker", "info", "--worker-repo", "w", "--json"]).env("FIL_PROOFS_VERIFY_CACHE", "false");
    let told: Value = serde_json::from_str(&ok(&mut asked)).expect("JSON");
    let setting = |task: &str, name: &str| {
        let settings = told["settings"].as_array().expect("settings");
        settings.iter().find(|it| it["task"] == task && it["name"] == name).cloned().unwrap_or_default()
    };
    let caching = setting("all", "FIL_PROOFS_VERIFY_CACHE");
    assert_eq!(
        (&caching["value"], &caching["origin"]),
        (&Value::from("true"), &Value::from("environment")),
        "{told:#}"
    );
    assert_eq!(setting("PC1", "RAYON_NUM_THREADS")["value"], "3", "{told:#}");
    assert_eq!(setting("all", "FIL_PROOFS_VERIFY_PRODUCTION_PARAMS")["origin"], "default", "{told:#}");
}

#[cfg(not(feature = "multicore-sdr"))]
#[test]
fn a_setting_whose_feature_is_not_compiled_in_ends_the_start() {
    let home = tempfile::tempdir().expect("a directory");
    for command in [&["worker", "run"][..], &["run"]] {
        let mut command = {
            let mut it = sealyard(home.path());
            it.args(command);
            it
        };
        let line = refused(command.env("FIL_PROOFS_USE_MULTICORE_SDR", "1"), 9);
        assert!(line.contains("FIL_PROOFS_USE_MULTICORE_SDR=1") && line.contains("multicore-sdr"), "{line}");
        assert_eq!(snapshot(home.path()), []);
    }
}

#[test]
fn without_leave_to_fetch_commit2_is_refused_or_left_off() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _manager = manager(home);
    let mut named = worker_command(home, "named");
    let line = refused(without_parameters(named.args(["--commit", "--no-params-fetch"]), home), 11);
    assert!(line.contains("`sealyard params fetch 2KiB`"), "{line}");
    assert!(!home.join("named").exists(), "nothing is made for a worker that does not start");

    let mut unnamed = worker_command(home, "unnamed");
    let mut worker = Daemon::start("worker", without_parameters(unnamed.arg("--no-params-fetch"), home));
    assert!(worker.expect("note: C2").contains("`sealyard params fetch 2KiB`"));
    let offered = worker.expect("offers");
    assert!(offered.contains(" PC2 ") && !offered.contains(" C2 "), "{offered}");
    worker.expect("registered");
}

#[test]
fn commit2_waits_for_its_parameters_and_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _manager = manager(home);
    let mut command = worker_command(home, "w");
    let mut worker =
        Daemon::start("worker", without_parameters(command.args(["--name", "w", "--commit"]), home));
    worker.expect("will offer C2 later");
    worker.expect("registered");
    let listed = ask_until(
        "C2's reason",
        EVENT_MAX,
        || ok(sealyard(home).args(["workers", "list"])),
        |listed| listed.contains("waiting for parameters"),
    );
    assert!(listed.contains("host w") && !listed.contains(" C2("), "{listed}");

    // Somebody brings them: no restart.
    let Some(real) = generated_parameters() else { return };
    let there = home.join("no-insecure");
    std::fs::create_dir_all(&there).expect("a directory");
    for file in real {
        let name = file.file_name().expect("a name");
        if std::fs::hard_link(&file, there.join(name)).is_err() {
            std::fs::copy(&file, there.join(name)).expect("a copy");
        }
    }
    ask_until(
        "C2",
        EVENT_MAX,
        || ok(sealyard(home).args(["workers", "list"])),
        |listed| listed.contains(" C2("),
    );
}

/// The generated parameters of this machine's user, if any have been made.
fn generated_parameters() -> Option<Vec<PathBuf>> {
    let directory = std::env::var_os("SEALYARD_INSECURE_PARAMETERS").map(PathBuf::from).or_else(|| {
        Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/sealyard/insecure-parameters"))
    })?;
    let files: Vec<PathBuf> =
        std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).collect();
    (!files.is_empty()).then_some(files)
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let home = tempfile::tempdir().expect("a directory");
    for command in ["completions bash", "--help", "params status", "version"] {
        let script = format!("{{ \"$0\" {command}; echo \"code $?\" >&2; }} | true");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, system::SEALYARD]);
        system::quiet(&mut shell, home.path());
        let output = system::run_within(&mut shell, system::COMMAND_MAX);
        assert_eq!(system::text(&output.stderr), "code 0\n", "{command}");
    }
}

#[test]
fn a_manager_outlives_the_reader_of_its_log() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "t01000"]));
    let mut command = sealyard(home);
    command.args(["run", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stderr.take());
    ask_until("the manager", EVENT_MAX, || home.join(".sealyard/api").exists(), |there| *there);
    let sectors = ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    assert!(sectors.contains("Created CC sector"), "{sectors}");
    ok(Command::new("kill").arg(child.id().to_string()));
    assert_eq!(child.wait().expect("ours").code(), Some(0));
}

#[test]
fn a_name_that_would_garble_a_terminal_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    for name in ["", "a\nb", "\u{1b}[2J"] {
        let line = refused(sealyard(home.path()).args(["worker", "run", "--name", name]), 9);
        assert!(line.contains("--name"), "{line}");
    }
}

#[test]
fn what_cannot_be_attached_says_why() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _manager = manager(home);
    std::fs::write(home.join("file"), "").expect("a file");
    std::fs::create_dir(home.join("empty")).expect("a directory");
    let table = [
        (&["missing"][..], "no such directory"),
        (&["file"], "no directory"),
        (&["file", "--init", "--store"], "no directory"),
        (&["empty"], "--init"),
        (&[".sealyard"], "attached already"),
    ];
    for (args, words) in table {
        let line = refused(sealyard(home).args(["storage", "attach"]).args(args), 10);
        assert!(line.contains(words), "{args:?} must say {words:?}: {line}");
    }
    assert_eq!(snapshot(&home.join("empty")), []);
}

/// `dev` at work on PreCommit1, and the directory it works in.
fn dev_at_work(home: &Path) -> (Daemon, PathBuf) {
    let mut command = sealyard(home);
    command.args(["dev", "--sector-size", "8MiB", "--until", "c1"]);
    let mut dev = Daemon::start("dev", &mut command);
    let place = dev.expect("working in ");
    let (_, dir) = place.split_once("working in ").expect("a directory");
    let dir = PathBuf::from(dir);
    dev.expect("PC1 running");
    (dev, dir)
}

/// Processes that work below `dir`.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let cwd = |entry: std::fs::DirEntry| std::fs::read_link(entry.path().join("cwd")).ok();
    entries.filter_map(cwd).filter(|cwd| cwd.starts_with(dir)).collect()
}

#[test]
fn an_interrupted_dev_leaves_nothing_behind() {
    for signal in ["-INT", "-TERM"] {
        let home = tempfile::tempdir().expect("a directory");
        let (mut dev, dir) = dev_at_work(home.path());
        ok(Command::new("kill").args([signal, &dev.id().to_string()]));
        assert_eq!(dev.end(), Some(1), "{}", dev.said());
        assert!(dev.said().contains("every process was stopped"), "{}", dev.said());
        assert_eq!(processes_in(&dir), Vec::<PathBuf>::new());
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

#[test]
fn a_dev_that_can_get_no_parameters_ends() {
    let home = tempfile::tempdir().expect("a directory");
    let place = home.path().join("yard");
    let mut command = sealyard(home.path());
    command.args(["dev", "--sectors", "1", "--json", "--dir"]).arg(&place);
    let command = without_parameters(&mut command, home.path());
    command.env("SEALYARD_INSECURE_PARAMETERS", "/proc/none");
    let output = system::run_within(command, system::COMMAND_MAX);
    let said = system::text(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert!(said.contains("sealyard params generate 2KiB"), "{said}");
    assert_eq!(system::text(&output.stdout), "", "no document of a run that failed");
}

#[test]
fn a_dev_whose_worker_is_killed_says_so_and_ends_the_rest() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut dev, dir) = dev_at_work(home.path());
    let listed = ok(Command::new("pgrep").args(["-P", &dev.id().to_string(), "-f", "--", "--name A"]));
    ok(Command::new("kill").args(["-9", listed.trim()]));
    assert_eq!(dev.end(), Some(1), "{}", dev.said());
    let said = dev.said();
    assert!(said.contains("process A ended") && said.contains("A.log"), "{said}");
    assert_eq!(processes_in(&dir), Vec::<PathBuf>::new(), "{said}");
    std::fs::remove_dir_all(&dir).expect("what failed is kept for its logs");
}
