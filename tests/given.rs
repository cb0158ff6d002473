//! What an operator gives for a repair or a rebuild, pieces and directories, is used or refused aloud, and nothing is waited
//! for in silence. With real proofs up to PreCommit2.

mod system;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use system::{Daemon, ask_until, json as answer, kill, ok, refused, run_within, sealyard, text};

/// Two 2 KiB sectors up to Commit1 take seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
/// The data of sector 1.
const FILES: [(&str, usize); 2] = [("one.car", 508), ("two.car", 1000)];
/// More memory than any machine has.
const TOO_MUCH: &str = "1125899906842624";

fn manager(home: &Path, repo: &str, config: &str) -> Daemon {
    ok(sealyard(home).args(["--repo", repo, "init", "--actor", "t01000", "--sector-size", "2KiB"]));
    fs::write(home.join(repo).join("config.toml"), config).expect("config.toml");
    let run = ["--repo", repo, "run", "--listen", "127.0.0.1:0"];
    let mut manager = Daemon::start(repo, sealyard(home).args(run));
    manager.expect("listening on");
    manager
}

/// Sector 1 with two files and sector 2 of zeros, sealed by a manager that is gone: `lost.json`.
struct Lost {
    /// The CID of each file's piece.
    cids: Vec<String>,
    replicas: Vec<Vec<u8>>,
}

impl Lost {
    /// `--piece CID=FILE` for each.
    fn pieces(&self) -> Vec<String> {
        let each = self.cids.iter().zip(FILES);
        each.flat_map(|(cid, (file, _))| ["--piece".to_owned(), format!("{cid}={file}")]).collect()
    }
}

fn sealed_elsewhere(home: &Path) -> Lost {
    let _first = manager(home, "first", "[sealing]\nstop_at = \"c1\"\n");
    for (name, length) in FILES {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        fs::write(home.join(name), bytes).expect("a file");
        ok(sealyard(home).args(["--repo", "first", "sectors", "add-piece", name]));
    }
    // Both fill the sector, which starts by itself.
    ok(sealyard(home).args(["--repo", "first", "sectors", "pledge", "--until", "c1"]));
    let (mut entries, mut replicas, mut cids) = (Vec::new(), Vec::new(), Vec::new());
    for number in ["1", "2"] {
        let status = || answer(home, &["--repo", "first", "sectors", "status", number]);
        let status = ask_until("a replica", SEALING_MAX, status, |status| status["stopped"] == true);
        let ticket = hex::decode(status["ticket"].as_str().expect("a ticket")).expect("hex");
        let data = status["data"].as_array().expect("a list");
        let pieces: Vec<Value> = data
            .iter()
            .map(|data| json!({"Size": data["padded_size"], "PieceCID": {"/": data["cid"]}}))
            .collect();
        cids.extend(data.iter().map(|data| data["cid"].as_str().expect("a CID").to_owned()));
        entries.push(json!({
            "SectorNumber": status["sector"]["number"], "SealProof": status["proof_type"],
            "Ticket": base64::engine::general_purpose::STANDARD.encode(ticket),
            "SealedCID": {"/": status["comm_r"]}, "UnsealedCID": {"/": status["comm_d"]}, "Pieces": pieces,
        }));
        let file = home.join(format!("first/sealed/s-t01000-{number}"));
        replicas.push(fs::read(file).expect("its replica"));
    }
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": entries});
    fs::write(home.join("lost.json"), file.to_string()).expect("the file");
    Lost { cids, replicas }
}

/// Before anything is copied or sealed, whether or not the data is given.
fn pieces_that_make_another_sector_are_refused(home: &Path, second: &impl Fn(&[&str], &[String]) -> Command) {
    let file = fs::read(home.join("lost.json")).expect("the file");
    let mut file: Value = serde_json::from_slice(&file).expect("JSON");
    let stated = file["SectorInfos"][0]["UnsealedCID"]["/"].as_str().expect("a CID").to_owned();
    let pieces = &mut file["SectorInfos"][0]["Pieces"];
    pieces.as_array_mut().expect("pieces").reverse();
    fs::write(home.join("turned.json"), file.to_string()).expect("the file");
    let turned = ["repair", "run", "--manager", "--metadata", "turned.json", "1"];
    let (said, told) = run(second(&turned, &[]), 1);
    let named = format!("sector 1 is not back: UnsealedCID is {stated}, and its Pieces in this order make ");
    assert!(told.contains(&named), "{said}{told}");
    assert_eq!(answer(home, &["--repo", "second", "sectors", "list"]), json!([]), "nothing has begun");
}

/// Serves these bytes, to whoever asks, as a piece of so many: fewer break off in its midst. Gives its URL.
fn served(bytes: Vec<u8>, length: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/piece", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().expect("the stream")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
            answer.extend(&bytes);
            // Whoever has hung up is none to be told.
            drop(stream.write_all(&answer));
        }
    });
    url
}

fn run(mut command: Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = run_within(&mut command, SEALING_MAX);
    let (said, told) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{said}\n{told}");
    (said, told)
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().canonicalize().expect("a path without links");
    (dir, home)
}

#[test]
fn pieces_that_are_given_are_used_or_refused_aloud() {
    let (_dir, home) = home();
    let lost = sealed_elsewhere(&home);
    let _second = manager(&home, "second", "");
    let second = |words: &[&str], pieces: &[String]| {
        let mut command = sealyard(&home);
        command.args(["--repo", "second"]).args(words).args(pieces);
        command
    };
    let repair = ["repair", "run", "--manager", "--metadata", "lost.json", "--parallel", "2"];

    pieces_that_make_another_sector_are_refused(&home, &second);
    // A source that breaks off is named with its piece, and the other sector goes on.
    let url = served(vec![7; 100], 508);
    let mut pieces = lost.pieces();
    pieces[1] = format!("{}={url}", lost.cids[0]);
    let (_, told) = run(second(&repair, &pieces), 1);
    let named = format!("sector 1 is not back: piece {}: {url}: the data broke off", lost.cids[0]);
    assert!(told.contains(&named) && told.contains("sector 2 is back"), "{told}");
    let staged = || fs::read_dir(home.join("second/staging")).expect("the staging").count();
    assert_eq!(staged(), 0, "nothing is left of what broke off");
    run(second(&repair, &lost.pieces()), 0);

    // Its unsealed file is left, and damaged.
    let file = |kind: &str| home.join(format!("second/{kind}/s-t01000-1"));
    let forget = || ok(&mut second(&["storage", "redeclare", "--all", "--drop-missing"], &[]));
    let lose = || {
        fs::remove_file(file("sealed")).expect("the replica is deleted");
        fs::remove_dir_all(file("cache")).expect("its cache, too");
        forget();
    };
    lose();
    let mut damaged = fs::read(file("unsealed")).expect("its data");
    damaged[0] ^= 1;
    fs::write(file("unsealed"), damaged).expect("damaged");
    let rebuild = ["sectors", "rebuild", "1"];
    let unused = |told: &str| {
        assert!(told.contains("would not be used") && told.contains("put it aside"), "{told}");
        assert!(lost.cids.iter().all(|cid| told.contains(cid)), "{told}");
    };
    let state = || answer(&home, &["--repo", "second", "sectors", "status", "1"])["state"].clone();
    unused(&run(second(&rebuild, &lost.pieces()), 1).1);
    assert_eq!(state(), "Proving", "nothing was begun");
    run(second(&rebuild, &[]), 1);
    unused(&run(second(&rebuild, &lost.pieces()), 1).1);
    assert_eq!(staged(), 0, "what is refused does not stay");

    // What the refusal says brings it back.
    let put = ["--repo", "second", "sectors", "update-state", "--really-do-it", "1", "Proving"];
    assert_eq!(answer(&home, &put), json!({"sector": 1, "state": "Proving"}));
    fs::remove_file(file("unsealed")).expect("put aside");
    for kind in ["sealed", "cache"] {
        // Made by the rebuild that was given up, as far as that went.
        drop(fs::remove_dir_all(file(kind)).or_else(|_| fs::remove_file(file(kind))));
    }
    forget();
    run(second(&rebuild, &lost.pieces()), 0);
    assert!(fs::read(file("sealed")).expect("it is back") == lost.replicas[0]);
}

#[test]
fn one_machine_alone_says_what_it_waits_for_and_takes_another_result_directory() {
    let (_dir, home) = home();
    let lost = sealed_elsewhere(&home);
    let alone = |result: &str, words: &[&str]| {
        let mut command = sealyard(&home);
        command.args(["repair", "run", "--metadata", "lost.json", "--sealing-temp", "temp"]);
        command.args(["--sealing-result", result]).args(words);
        // Of another manager, which has a certificate for another name.
        command.env("SEALYARD_TLS_CERT", "none.pem").env("SEALYARD_TLS_KEY", "none.pem");
        command
    };
    let back = |result: &str, number: usize| {
        let file = home.join(format!("{result}/sealed/s-t01000-{number}"));
        assert!(fs::read(file).expect("its replica") == lost.replicas[number - 1], "{number}");
    };
    let attach = |result: &str| format!("sealyard storage attach {}", home.join(result).display());

    let mut waiting = Daemon::start("waiting", alone("result", &["2"]).env("PC1_2K_MIN_MEMORY", TOO_MUCH));
    let waits = waiting.expect("sector 2 waits: PC1");
    assert!(waits.contains("needs 1 PiB of memory") && waits.contains("PC1_2K_MIN_MEMORY"), "{waits}");
    // Another start in the same directory does not take its address away.
    let (_, told) = run(alone("result", &["2"]), 3);
    assert!(told.contains("MGR042"), "{told}");
    assert!(home.join("temp/repair-f01000/api").is_file());
    kill(&mut waiting);
    run(alone("result", &["2"]), 0);
    back("result", 2);

    // Another directory, while the first is there: it is known what lies in it.
    let (_, told) = run(alone("other", &["2"]), 0);
    assert!(told.contains("holds 1 sectors of this repair") && told.contains("nothing was done"), "{told}");
    assert!(told.contains(&attach("result")) && told.contains(&attach("other")), "{told}");

    // While it is not, what lay in it is not sealed anew, and the other sector is when nothing is expected any more.
    fs::rename(home.join("result"), home.join("away")).expect("taken away");
    // Of the first one's two pieces one comes from a URL.
    let url = served(fs::read(home.join(FILES[0].0)).expect("the file"), FILES[0].1);
    let mut pieces = lost.pieces();
    pieces[1] = format!("{}={url}", lost.cids[0]);
    let mut command = alone("other", &["1", "2"]);
    command.args(pieces);
    let (_, told) = run(command, 1);
    assert!(told.contains(&format!("piece {} is there, from {url}", lost.cids[0])), "{told}");
    assert!(told.contains("sector 1 waits: MGR159"), "{told}");
    assert!(told.contains("sector 1 is back"), "{told}");
    assert!(
        told.contains("sector 2 is not back: MGR143") && told.contains("to begin from nothing"),
        "{told}"
    );
    back("other", 1);
}

/// What is wrong with the file is one line, with the sector, and nothing is begun.
#[test]
fn a_file_with_a_mistake_is_refused_by_name() {
    let (_dir, home) = home();
    let entry = |proof: i64, cid: &str| {
        json!({
            "SectorNumber": 7, "Ticket": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "SealProof": proof,
            "SealedCID": {"/": cid},
        })
    };
    let good = "bagboea4b5abcatlxechwbp7kjpjguna6r6q7ejrhe6mdp3lf34pmswn27pkkiekz";
    let mut nameless = entry(5, good);
    nameless.as_object_mut().expect("an object").remove("Ticket");
    let file =
        |entry: Value| json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": [entry]}).to_string();
    for (text, words) in [
        ("{".to_owned(), "bad.json: the file is no JSON as `repair export` writes it"),
        (file(json!({"Ticket": 7})), "sector entry 1 of SectorInfos: SectorNumber is missing"),
        (file(nameless), "sector 7: Ticket: it is missing"),
        (file(entry(5, "bagboea4b5abc")), "sector 7: SealedCID: "),
        (file(entry(30, good)), "sector 7: SealProof: 30 is no registered seal proof"),
    ] {
        fs::write(home.join("bad.json"), text).expect("written");
        let line = refused(sealyard(&home).args(["repair", "run", "--metadata", "bad.json"]), 9);
        assert!(line.contains(words), "{line}");
        assert!(!home.join("temp").exists() && !home.join("sector").exists(), "nothing is begun");
    }
    // Printed pre-commitments, before any node is asked.
    let printed = |key: &str, value: Value| {
        let mut body =
            json!({"RegisteredProof": 5, "SectorNumber": 7, "SealedCid": good, "SealRandEpoch": 90});
        body[key] = value;
        body.to_string()
    };
    for (text, words) in [
        ("[".to_owned(), "bad.json: the file is no JSON as a PreCommit message's body is printed"),
        (printed("SealedCid", Value::Null), "sector 7: SealedCID: it is missing"),
        (printed("RegisteredProof", json!(30)), "sector 7: SealProof: 30 is no registered seal proof"),
    ] {
        fs::write(home.join("bad.json"), text).expect("written");
        let words_of = ["recover", "--precommit-json", "bad.json", "--miner", "f01000"];
        let line = refused(sealyard(&home).args(words_of), 9);
        assert!(line.contains(words), "{line}");
        assert!(!home.join("temp").exists() && !home.join("sector").exists(), "nothing is begun");
    }
}
