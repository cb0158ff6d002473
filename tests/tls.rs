//! A manager and workers that speak TLS alone: a sector is sealed to Commit1, its files move by https, and every command
//! of an operator works by the authority's file. What cannot work says so before anything is written.

#[path = "../rpc/tests/wire/certs.rs"]
mod certs;
mod system;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use certs::{Authority, NOW, PAST, Pair};
use serde_json::Value;
use system::{Daemon, ask_until, ok, refused, sealyard};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing, so that files must move between the two others.
const CONFIG: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n[API]\nCertificateFile = \"here.pem\"\nPrivateKeyFile = \"here.key\"\n\
    CAFile = \"ca.pem\"\n";

fn json(command: &mut Command) -> Value {
    let text = ok(command.arg("--json"));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{command:?} printed no JSON ({error}): {text}"))
}

fn copy(pair: &Pair, authority: &Authority, repo: &Path) {
    for (from, to) in
        [(&pair.certificate, "here.pem"), (&pair.key, "here.key"), (&authority.own().certificate, "ca.pem")]
    {
        std::fs::copy(from, repo.join(to)).expect("copied");
    }
}

/// What a port says to someone who speaks plain HTTP.
fn plainly(address: &str) -> String {
    let mut socket = std::net::TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(system::COMMAND_MAX)).expect("a bound");
    socket.write_all(b"GET /remote/stat/x HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("text");
    said
}

#[test]
fn a_sector_is_sealed_and_its_files_move_over_tls() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let authority = Authority::new(&home.join("authority"));
    let pair = authority.issue("here", "DNS:localhost,IP:127.0.0.1", NOW);
    let ca = authority.own().certificate;
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
    let repo = home.join(".sealyard");
    copy(&pair, &authority, &repo);
    std::fs::write(repo.join("config.toml"), CONFIG).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    let listening = manager.expect("listening on");
    assert!(listening.contains("(TLS alone)"), "{listening}");

    // One worker with flags on this host, which the manager's repo tells where it is; one by the line to paste.
    let certificate = ["--tls-cert", pair.certificate.to_str().expect("text")];
    let key = ["--tls-key", pair.key.to_str().expect("text")];
    let trust = ["--ca-file", ca.to_str().expect("text")];
    let mut a = sealyard(home);
    a.args(["worker", "run", "--name", "A", "--address", "127.0.0.1:0", "--worker-repo", "A"]);
    a.args(["--addpiece", "--precommit1"]).args(certificate).args(key).args(trust);
    let mut a = Daemon::start("A", a.env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/"));
    a.expect("registered");
    let line = json(sealyard(home).args(["workers", "join-command"]));
    let line = line["command"].as_str().expect("a command line").to_owned();
    let (variable, _) = line.split_once(' ').expect("a variable and a command");
    let (name, info) = variable.split_once('=').expect("NAME=value");
    assert!(info.contains(":https://127.0.0.1:"), "{line}");
    let mut b = sealyard(home);
    b.args(["worker", "run", "--name", "B", "--address", "localhost:0", "--worker-repo", "B"]);
    b.args(["--precommit2", "--commit"]).args(certificate).args(key).env(name, info);
    let mut b =
        Daemon::start("B", b.env("SEALYARD_CA_FILE", &ca).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/"));
    b.expect("registered");

    let said = ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let number = said.trim().rsplit(' ').next().expect("a number").to_owned();
    let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
    let status =
        ask_until("Commit1", SEALING_MAX, || json(sealyard(home).args(["sectors", "status", &number])), done);
    assert_eq!(status["state"], "Committing", "{}", manager.said());
    let found = ok(sealyard(home).args(["storage", "find", &number]));
    assert!(found.contains("Worker: B") && found.contains("https://localhost:"), "{found}");
    assert!(!found.contains("http://"), "{found}");

    // By the workers' and the manager's ports; a worker's own repo; another machine with and without the authority.
    let paths = json(sealyard(home).args(["storage", "list"])).to_string();
    assert!(paths.contains("https://127.0.0.1:") && !paths.contains("http://"), "{paths}");
    let port = info.rsplit(':').next().expect("a port");
    assert!(plainly(&format!("127.0.0.1:{port}")).contains("TLS10: this port speaks TLS"));
    let elsewhere = tempfile::tempdir().expect("another host's home");
    let admin = json(sealyard(home).args(["auth", "api-info", "--perm", "admin"]));
    let admin = admin["MINER_API_INFO"].as_str().expect("a line");
    let far = |ca: Option<&Path>| {
        let mut command = sealyard(elsewhere.path());
        command.args(["sealing", "workers"]).env("MINER_API_INFO", admin);
        if let Some(ca) = ca {
            command.env("SEALYARD_CA_FILE", ca);
        }
        command
    };
    assert!(ok(&mut far(Some(&ca))).contains("host B"));
    let told = refused(&mut far(None), 5);
    assert!(told.contains("TLS14") && !told.contains("is its port open"), "{told}");
    let wire = admin.replacen("https://", "http://", 1);
    let told = refused(far(Some(&ca)).env("MINER_API_INFO", wire), 1);
    assert!(told.contains("TLS10"), "{told}");
    ok(sealyard(home).args(["worker", "stop", "--worker-repo", "A"]).env("SEALYARD_CA_FILE", &ca));
    a.expect("stopping: asked to over the API");
}

#[test]
fn what_cannot_work_is_refused_with_a_code_before_anything_is_served() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let authority = Authority::new(&home.join("authority"));
    let here = "DNS:localhost,IP:127.0.0.1";
    let good = authority.issue("here", here, NOW);
    let (old, another) = (authority.issue("old", here, PAST), authority.issue("another", here, NOW));
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
    let run = |pair: &Pair, more: &[&str]| {
        let mut command = sealyard(home);
        command.args(["run", "--listen", "127.0.0.1:0"]).args(more);
        command.arg("--tls-cert").arg(&pair.certificate).arg("--tls-key").arg(&pair.key);
        command
    };
    let mismatched = Pair { key: another.key, ..good.clone() };
    let elsewhere: &[&str] = &["--advertise", "seal.example:2345"];
    for (pair, more, code) in [
        (&old, &[][..], "TLS06"),
        (&mismatched, &[], "TLS05"),
        (&good, elsewhere, "TLS08"),
        (&good, &["--ca-file", "none"], "TLS01"),
    ] {
        let told = refused(&mut run(pair, more), 9);
        assert!(told.contains(code), "{code}: {told}");
    }
    let told = refused(sealyard(home).args(["run", "--listen", "127.0.0.1:0", "--tls-key", "x"]), 9);
    assert!(told.contains("without its certificate") && told.contains("--tls-cert"), "{told}");
    assert!(!home.join(".sealyard/api").exists(), "nothing was served");
}
