//! A lost sector comes back on one machine from the printed body of its PreCommit message, with a full node that has forgotten
//! the message. With real proofs up to PreCommit2.

mod standin;
mod system;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use standin::{Effect, PreCommitted, Proven, StandInNode, World};
use system::{Daemon, ask_until, json as answer, ok, refused, run_within, sealyard, text};

/// A 2 KiB sector takes seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
const FULL_NODE: &str = "FULLNODE_API_INFO";

#[test]
fn a_sector_comes_back_from_the_printed_body_of_its_message() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    // The node answers while this thread waits for processes.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(World::new()));
    let with_node = |words: &[&str]| {
        let mut command = sealyard(&home);
        command.args(words).env(FULL_NODE, node.api_info());
        command
    };
    ok(&mut with_node(&["--repo", "first", "init", "--actor", "t01000"]));
    let run = ["--repo", "first", "run", "--listen", "127.0.0.1:0"];
    let mut manager = Daemon::start("first", &mut with_node(&run));
    manager.expect("listening on");
    ok(sealyard(&home).args(["--repo", "first", "sectors", "pledge"]));
    let status = || answer(&home, &["--repo", "first", "sectors", "status", "1"]);
    let sealed = |status: &Value| status["state"] == "PreCommitting";
    let status = ask_until("a replica", SEALING_MAX, status, sealed);
    let replica = fs::read(home.join("first/sealed/s-t01000-1")).expect("its replica");
    drop(manager);

    let (number, proof) = (1, 5);
    let sealed = status["comm_r"].as_str().expect("CommR").to_owned();
    let ticket_epoch = status["ticket_epoch"].as_i64().expect("a height");
    let (deals, unsealed) = (vec![], None);
    let promised = PreCommitted { number, proof, sealed: sealed.clone(), ticket_epoch, deals, unsealed };
    node.world().mine_with(vec![Effect::PreCommit(promised)]);
    let proven = Proven { number, proof, sealed: sealed.clone(), key: None };
    node.world().mine_with(vec![Effect::Prove(proven)]);
    node.world().mine();
    let head = node.world().head().height;
    node.world().remembers_from = head;
    refused(&mut with_node(&["export", "--miner", "f01000", "1"]), 1);

    let write = |epoch: i64| {
        let body = json!({
            "RegisteredProof": proof, "SectorNumber": number, "SealedCid": sealed, "SealRandEpoch": epoch,
            "DealIds": [], "Expiration": 2480426, "ReplaceCapacity": false, "ReplaceSectorDeadline": 0,
        });
        fs::write(home.join("body.json"), body.to_string()).expect("the body");
    };
    let recover = ["recover", "--precommit-json", "body.json", "--miner", "f01000"];
    // A height above the sector's own activation gives no ticket, and nothing is made.
    write(head + 1);
    let line = refused(&mut with_node(&recover), 1);
    assert!(line.contains("1 of 1 sectors are not back: 1"), "{line}");
    assert!(!home.join("temp").exists() && !home.join("sector").exists(), "nothing is begun");

    write(ticket_epoch);
    let output = run_within(&mut with_node(&recover), SEALING_MAX);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 of 1 sectors are back"));
    assert!(fs::read(home.join("sector/sealed/s-t01000-1")).expect("it is back") == replica);
}
