//! The same across hosts: a manager in one network namespace, a worker in another, nothing shared but a wire.
//! Needs root and iproute2; where they are missing the test says so and leaves itself out.

mod system;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system::hosts::Hosts;
use system::{Daemon, ask_until, ok, sealyard};

const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

#[test]
fn a_sector_is_sealed_across_two_hosts() {
    let Some(hosts) = Hosts::new(2) else { return };
    let home = tempfile::tempdir().expect("the manager's home");
    let home = home.path();
    let away = tempfile::tempdir().expect("the workers' home");
    let away = away.path();
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let mut run = hosts.on(0, home);
    let mut manager = Daemon::start(
        "manager",
        run.args(["run", "--listen", "0.0.0.0:2345", "--advertise", "10.77.0.1:2345"]),
    );
    manager.expect("listening on");
    let info = ok(hosts.on(0, home).args(["auth", "api-info", "--perm", "admin"]));
    let info = info.trim().strip_prefix("MINER_API_INFO=").expect("MINER_API_INFO=").to_owned();
    assert!(info.contains("/ip4/10.77.0.1/tcp/2345"), "the advertised address is what others get");

    unreachable_for_the_dial_back(&hosts, away, &info);

    let worker = |name: &'static str, port: u16, tasks: &[&str]| {
        let mut command = hosts.on(1, away);
        command.env("MINER_API_INFO", &info).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
        // No --address: the worker finds the local address of its route to the manager by itself.
        command.args(["worker", "run", "--name", name, "--listen", &format!("0.0.0.0:{port}")]).args(tasks);
        command.arg("--worker-repo").arg(away.join(name));
        let mut worker = Daemon::start(name, &mut command);
        worker.expect("registered");
        worker
    };
    let _a = worker("A", 3456, &["--addpiece", "--precommit1"]);
    let _b = worker("B", 3457, &["--precommit2", "--commit"]);
    let listed = ok(hosts.on(0, home).args(["workers", "list"]));
    assert!(listed.contains("10.77.0.2:3456") && listed.contains("10.77.0.2:3457"), "{listed}");
    let said = ok(hosts.on(0, home).args(["sectors", "pledge", "--until", "c1"]));
    let number = said.trim().rsplit(' ').next().expect("a number").to_owned();
    let status = || -> Value {
        let text = ok(hosts.on(0, home).args(["sectors", "status", "--json", &number]));
        serde_json::from_str(&text).expect("JSON")
    };
    ask_until("Commit1", Duration::from_secs(120), status, |status| {
        status["stopped"] == true && status["c1_sha256"].is_string()
    });
    let found = ok(hosts.on(0, home).args(["storage", "find", &number]));
    assert!(found.contains("http://10.77.0.2:3457/remote/sealed/"), "{found}");
}

/// The manager cannot reach the address the worker gives: the manager says so, the worker repeats it and ends.
fn unreachable_for_the_dial_back(hosts: &Hosts, away: &Path, info: &str) {
    let mut command = hosts.on(1, away);
    command.env("MINER_API_INFO", info).args(["worker", "run", "--address", "192.0.2.9:3456"]);
    let line = system::refused(&mut command, 7);
    assert!(line.contains("192.0.2.9:3456") && line.contains("3456") && line.contains("--address"), "{line}");
}
