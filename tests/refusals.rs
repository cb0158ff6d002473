//! What goes wrong ends in one clear line with a documented exit code, and nothing changes on disk.

mod system;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

use system::{Daemon, ok, refused, sealyard, snapshot};

fn init(home: &Path) {
    ok(sealyard(home).args(["init", "--actor", "t01000"]));
}

fn manager(home: &Path) -> Daemon {
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    manager
}

fn api_info(home: &Path) -> String {
    let line = ok(sealyard(home).args(["auth", "api-info", "--perm", "admin"]));
    line.trim().strip_prefix("MINER_API_INFO=").expect("MINER_API_INFO=").to_owned()
}

#[test]
fn a_second_manager_on_the_same_repo() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let running = manager(home.path());
    let line = refused(sealyard(home.path()).args(["run", "--listen", "127.0.0.1:0"]), 3);
    assert!(
        line.contains(&running.id().to_string()),
        "the line names the process that holds the repo: {line}"
    );
}

#[test]
fn a_port_in_use() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let before = snapshot(&home.path().join(".sealyard/keystore"));
    let line = refused(sealyard(home.path()).args(["run", "--listen", &address]), 4);
    assert!(line.contains(&address) && line.contains("--listen"), "{line}");
    assert_eq!(before, snapshot(&home.path().join(".sealyard/keystore")));
    assert!(!home.path().join(".sealyard/api").exists(), "nobody listens, so nobody says so");
}

#[test]
fn a_repo_that_exists_is_not_made_again() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let before = snapshot(home.path());
    let line = refused(sealyard(home.path()).args(["init", "--actor", "t01000"]), 3);
    assert!(line.contains(".sealyard"), "{line}");
    assert_eq!(before, snapshot(home.path()));
}

#[test]
fn settings_that_cannot_be() {
    let home = tempfile::tempdir().expect("a directory");
    let table: [(&[&str], i32, &[&str]); 6] = [
        (&["init", "--actor", "t01000", "--sector-size", "3KiB"], 9, &["3KiB", "2KiB, 8MiB"]),
        (&["init", "--actor", "t01000", "--sector-size", "32GiB"], 9, &["32GiB", "chain"]),
        (&["init", "--actor", "bob"], 9, &["bob", "f01000"]),
        (
            &["init", "--actor", "t01000", "--owner", "K", "--sector-size", "1GiB", "--genesis-miner"],
            12,
            &["today's form"],
        ),
        (&["init", "--actor", "t01000", "--owner", "K"], 12, &["today's form: sealyard init --actor t01000"]),
        (&["worker", "run", "--windowpost"], 12, &["not built yet"]),
    ];
    for (args, code, words) in table {
        let line = refused(sealyard(home.path()).args(args), code);
        for word in words {
            assert!(line.contains(word), "{args:?} must say {word}: {line}");
        }
        assert_eq!(snapshot(home.path()), [], "{args:?} must leave nothing behind");
    }
}

#[test]
fn a_worker_with_a_bad_token() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let _manager = manager(home.path());
    let info = api_info(home.path());
    let (token, address) = info.split_once(':').expect("TOKEN:ADDRESS");
    let forged = format!("{}AAAA:{address}", &token[..token.len() - 4]);
    let elsewhere = tempfile::tempdir().expect("another home");
    let mut command = sealyard(elsewhere.path());
    let line =
        refused(command.env("MINER_API_INFO", forged).args(["worker", "run", "--address", "127.0.0.1:0"]), 6);
    assert!(line.contains("token"), "{line}");
    assert_eq!(snapshot(elsewhere.path()), [], "no repo before the token is known to be good");

    // A good token that does not allow enough.
    let read = ok(sealyard(home.path()).args(["auth", "create-token", "--perm", "read"]));
    let weak = format!("{}:{address}", read.trim());
    let mut command = sealyard(elsewhere.path());
    let line =
        refused(command.env("MINER_API_INFO", weak).args(["worker", "run", "--address", "127.0.0.1:0"]), 6);
    assert!(line.contains("admin"), "{line}");
    assert_eq!(snapshot(elsewhere.path()), []);
}

/// Executors without the limit that was asked for would take the memory of all others.
#[test]
fn a_limit_on_memory_that_cannot_be_given() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let dir = home.path().join(".sealyard/worker");
    std::fs::create_dir(&dir).expect("the own worker's repo");
    std::fs::write(dir.join("config.toml"), "[executor.pc1]\nmemory = \"72GiB\"\n").expect("written");
    // A machine without control groups.
    let without = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("mount -t tmpfs none /sys/fs/cgroup && exec {script}")]);
        system::quiet(&mut command, home.path());
        command
    };
    if !system::run_within(&mut without("true"), system::COMMAND_MAX).status.success() {
        #[expect(clippy::print_stderr, reason = "whoever reads the test's output must see what was left out")]
        {
            eprintln!("LEFT OUT: this user may not mount a tmpfs");
        }
        return;
    }
    let line = refused(&mut without(&format!("{} run --listen 127.0.0.1:0", system::SEALYARD)), 9);
    for word in ["limits the memory of executors", "/sys/fs/cgroup", "Delegate=memory"] {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn a_worker_without_a_manager() {
    let home = tempfile::tempdir().expect("a directory");
    let line = refused(sealyard(home.path()).args(["worker", "run"]), 5);
    assert!(line.contains("MINER_API_INFO") && line.contains("sealyard run"), "{line}");
    assert_eq!(snapshot(home.path()), []);
    // Its repo is here, but it is not started: the same.
    let made = tempfile::tempdir().expect("a directory");
    init(made.path());
    let output = system::run_within(
        sealyard(made.path()).args(["worker", "run", "--address", "127.0.0.1:0", "--timeout", "1s"]),
        system::COMMAND_MAX,
    );
    let said = system::text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("waiting for the manager") && said.contains("sealyard run"), "{said}");
    assert!(!made.path().join(".sealyardworker").exists());
    // Named but down: it waits, says so, and gives up at the bound.
    let mut command = sealyard(home.path());
    command.env("MINER_API_INFO", "eyJh.eyJB.c2ln:/ip4/127.0.0.1/tcp/1/http").args([
        "worker",
        "run",
        "--address",
        "127.0.0.1:0",
        "--timeout",
        "2s",
    ]);
    let output = system::run_within(&mut command, system::COMMAND_MAX);
    let said = system::text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("waiting for the manager"), "{said}");
    assert_eq!(snapshot(home.path()), []);
}

/// Answers every request as a manager of another version would. Named as what it is: a stand-in for a foreign manager.
fn manager_of_another_version() -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            std::io::Read::read_exact(&mut reader, &mut body).expect("the body");
            let request: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let answer = serde_json::json!({ "jsonrpc": "2.0", "id": request["id"],
                "result": { "Version": "1.99.0", "APIVersion": 0x01_09_00, "BlockDelay": 30 } });
            let text = answer.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    (address, thread)
}

#[test]
fn a_manager_of_another_version() {
    let home = tempfile::tempdir().expect("a directory");
    let (address, _thread) = manager_of_another_version();
    let info = format!("eyJh.eyJB.c2ln:/ip4/127.0.0.1/tcp/{}/http", address.port());
    let mut command = sealyard(home.path());
    let line =
        refused(command.env("MINER_API_INFO", info).args(["worker", "run", "--address", "127.0.0.1:0"]), 8);
    assert!(line.contains("1.9.0") && line.contains("1.5.0"), "both versions are named: {line}");
    assert_eq!(snapshot(home.path()), []);
}

#[test]
fn a_corrupt_sectorstore_json_is_fatal_for_its_path_alone() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let mut running = manager(home.path());
    let bad = home.path().join("bad");
    std::fs::create_dir(&bad).expect("a directory");
    std::fs::write(bad.join("sectorstore.json"), "{\"ID\": 7").expect("a file");
    let before = snapshot(&bad);
    let line = refused(sealyard(home.path()).args(["storage", "attach"]).arg(&bad), 10);
    assert!(line.contains("sectorstore.json"), "{line}");
    assert_eq!(before, snapshot(&bad));
    let good = home.path().join("good");
    ok(sealyard(home.path()).args(["storage", "attach", "--init", "--store"]).arg(&good));
    assert!(
        ok(sealyard(home.path()).args(["storage", "list"])).contains(&*good.to_string_lossy()),
        "{}",
        running.said()
    );
}

#[test]
fn a_foreign_file_is_named_and_left_alone() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let mut running = manager(home.path());
    let path = home.path().join("store");
    std::fs::create_dir_all(path.join("sealed")).expect("a directory");
    std::fs::write(path.join("sealed/holiday.jpg"), b"sun").expect("a file");
    std::fs::write(path.join("sealed/s-t01000-7"), [0; 2048]).expect("a file");
    ok(sealyard(home.path()).args(["storage", "attach", "--init", "--store"]).arg(&path));
    let warning = running.expect("holiday.jpg");
    assert!(warning.contains("WARN"), "{warning}");
    assert_eq!(std::fs::read(path.join("sealed/holiday.jpg")).expect("still there"), b"sun");
    let found = ok(sealyard(home.path()).args(["storage", "find", "7"]));
    assert!(found.contains("Sealed"), "everything else goes on: {found}");
}

#[test]
fn a_piece_of_the_wrong_size() {
    let home = tempfile::tempdir().expect("a directory");
    let unsealed = home.path().join("unsealed");
    let request = serde_json::json!({
        "version": 1,
        "sector": { "id": { "miner": 1000, "number": 1 }, "proof": 5 },
        "work": { "task": "AP", "input": { "existing": [], "size": 2032, "source": "stream" } },
        "files": { "unsealed": unsealed },
    });
    std::fs::write(home.path().join("request.json"), request.to_string()).expect("a file");
    let before = snapshot(home.path());
    // 100 bytes on descriptor 3 where 2032 were announced.
    let script =
        "head -c 100 /dev/zero | \"$0\" exec ap --input request.json --output report.json 3<&0 </dev/null";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, system::SEALYARD]);
    system::quiet(&mut command, home.path());
    let line = refused(&mut command, 1);
    assert!(line.contains("100") && line.contains("2032"), "both lengths are named: {line}");
    let mut after = snapshot(home.path());
    after.retain(|(path, _)| !path.ends_with("report.json"));
    assert_eq!(before, after, "the unsealed file is as it was: absent");
}

#[test]
fn a_configuration_with_a_mistake_is_named_in_one_line() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let file = home.path().join(".sealyard/config.toml");
    let table = [("[API\n", "line 1"), ("[Storage]\nAllowPreCommit9 = true\n", "AllowPreCommit1")];
    for (text, words) in table {
        std::fs::write(&file, text).expect("config.toml");
        let output = system::run_within(sealyard(home.path()).arg("run"), system::COMMAND_MAX);
        let said = system::text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(3), 1), "{said}");
        assert!(said.contains(&*file.to_string_lossy()) && said.contains(words), "{said}");
    }
}

#[test]
fn a_worker_told_to_join_a_worker() {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path());
    let _manager = manager(home.path());
    let mut worker = Daemon::start(
        "worker",
        sealyard(home.path()).args(["worker", "run", "--precommit1", "--address", "127.0.0.1:0"]),
    );
    worker.expect("registered");
    let repo = home.path().join(".sealyardworker");
    let read = |name: &str| std::fs::read_to_string(repo.join(name)).expect(name).trim().to_owned();
    let info = format!("{}:{}", read("token"), read("api"));
    let mut command = sealyard(home.path());
    command.env("MINER_API_INFO", &info).args([
        "worker",
        "run",
        "--worker-repo",
        "w2",
        "--address",
        "127.0.0.1:0",
    ]);
    assert!(refused(&mut command, 1).contains("no manager"));
    assert!(!home.path().join("w2").exists());
    let line = refused(sealyard(home.path()).env("MINER_API_INFO", &info).args(["workers", "list"]), 1);
    assert!(line.contains("no Sealyard manager"), "{line}");
}
