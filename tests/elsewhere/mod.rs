//! Two sectors that a stand-in for a full node has on its chain, sealed for it by a manager that is gone: what is exported of
//! them, and their bytes. The one holds three files, the other zeros. With real proofs up to PreCommit2.
#![allow(dead_code, reason = "each test target uses its part of this")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::standin::{Deal, Effect, PreCommitted, Proven, StandInNode, World};
use crate::system::{Daemon, ask_until, json as answer, ok, sealyard};

/// Two 2 KiB sectors take seconds; a loaded machine gets more.
pub const SEALING_MAX: Duration = Duration::from_secs(600);
const FULL_NODE: &str = "FULLNODE_API_INFO";
/// The data of sector 1.
pub const FILES: [(&str, usize); 3] = [("one.car", 200), ("two.car", 508), ("three.car", 60)];

/// What two sectors were sealed from somewhere else, and to.
pub struct Lost {
    pub entries: Vec<Value>,
    pub replicas: Vec<Vec<u8>>,
    /// What sector 1 holds.
    pub unsealed: Vec<u8>,
    /// `CID=FILE` of each piece.
    pub pieces: Vec<String>,
}

/// Seals a sector with three files and one of zeros for a full node's chain, which then has both, and exports from there
/// what it says of them: `lost.json`.
pub fn sealed_elsewhere(home: &Path) -> Lost {
    // The node answers while this thread waits for processes.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(World::new()));
    let first = |words: &[&str]| {
        let mut command = sealyard(home);
        command.args(["--repo", "first"]).args(words).env(FULL_NODE, node.api_info());
        command
    };
    ok(&mut first(&["init", "--actor", "t01000"]));
    let mut manager = Daemon::start("first", &mut first(&["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let (mut pieces, mut deals) = (Vec::new(), Vec::new());
    for (deal, (name, length)) in (71..).zip(FILES) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        fs::write(home.join(name), bytes).expect("a file");
        let given = answer(home, &["--repo", "first", "sectors", "add-piece", name]);
        let piece = given["cid"].as_str().expect("a CID").to_owned();
        pieces.push(format!("{piece}={name}"));
        let size = given["padded_size"].as_u64().expect("a size");
        node.world().deals.insert(deal, Deal { piece, size });
        deals.push(deal);
    }
    ok(&mut first(&["sectors", "start-seal", "1"]));
    ok(&mut first(&["sectors", "pledge"]));
    let (mut promised, mut proven, mut replicas) = (Vec::new(), Vec::new(), Vec::new());
    for number in [1, 2] {
        let words = ["--repo", "first", "sectors", "status", &number.to_string()];
        let sealed = |status: &Value| status["state"] == "PreCommitting";
        let status = ask_until("a replica", SEALING_MAX, || answer(home, &words), sealed);
        let text = |key: &str| status[key].as_str().expect("text").to_owned();
        let (proof, sealed) = (5, text("comm_r"));
        let ticket_epoch = status["ticket_epoch"].as_i64().expect("a height");
        let (deals, unsealed) =
            if number == 1 { (deals.clone(), Some(text("comm_d"))) } else { (vec![], None) };
        let made = PreCommitted { number, proof, sealed: sealed.clone(), ticket_epoch, deals, unsealed };
        promised.push(Effect::PreCommit(made));
        proven.push(Effect::Prove(Proven { number, proof, sealed, key: None }));
        let file = home.join(format!("first/sealed/s-t01000-{number}"));
        replicas.push(fs::read(file).expect("its replica"));
    }
    drop(manager);
    node.world().mine_with(promised);
    node.world().mine_with(proven);
    node.world().mine();
    let export = ["repair", "export", "--miner", "f01000", "--output", "lost.json", "1", "2"];
    ok(sealyard(home).args(export).env(FULL_NODE, node.api_info()));
    let file = fs::read(home.join("lost.json")).expect("the file");
    let mut file: Value = serde_json::from_slice(&file).expect("JSON");
    let entries = file["SectorInfos"].as_array_mut().map(std::mem::take).expect("sectors");
    assert_eq!((entries.len(), entries[0]["Pieces"].as_array().map(Vec::len)), (2, Some(3)), "{entries:#?}");
    let unsealed = fs::read(home.join("first/unsealed/s-t01000-1")).expect("its data");
    Lost { entries, replicas, unsealed, pieces }
}

pub fn write(home: &Path, name: &str, entries: &[Value]) {
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": entries});
    fs::write(home.join(name), file.to_string()).expect("the file");
}

/// Tells a command where each piece is.
pub fn give(command: &mut Command, pieces: &[String]) {
    for piece in pieces {
        command.args(["--piece", piece]);
    }
}

/// A ticket with one bit of it changed.
pub fn with_another_ticket(entry: &Value) -> Value {
    let base64 = &base64::engine::general_purpose::STANDARD;
    let mut ticket = base64.decode(entry["Ticket"].as_str().expect("a ticket")).expect("base64");
    ticket[17] ^= 1;
    let mut entry = entry.clone();
    entry["Ticket"] = json!(base64.encode(ticket));
    entry
}
