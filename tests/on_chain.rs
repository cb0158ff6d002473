//! A sector of a real yard, with real proofs, for the chain of a stand-in full node: bound to it, shown first, then sent and
//! proven.

mod standin;
mod system;

use std::fs;
use std::path::Path;

use serde_json::Value;
use standin::{Effect, PreCommitted, Proven, StandInNode, World};
use system::parameters::{self, PROVING_MAX};
use system::{Daemon, ask_until, json, ok, refused, sealyard};

const FULL_NODE: &str = "FULLNODE_API_INFO";

fn status(home: &Path) -> Value {
    json(home, &["sectors", "status", "1"])
}

fn until(home: &Path, state: &str) -> Value {
    ask_until(state, PROVING_MAX, || status(home), |status| status["state"] == state)
}

fn manager(home: &Path, node: &StandInNode, args: &[&str]) -> Daemon {
    let run = ["run", "--listen", "127.0.0.1:0"];
    let mut manager =
        Daemon::start("manager", sealyard(home).args(run).args(args).env(FULL_NODE, node.api_info()));
    manager.expect("listening on");
    manager
}

/// The block with all messages that wait and what they do; from then on each look at the head makes another.
fn land(node: &StandInNode, effect: Effect) {
    let mut world = node.world();
    world.mine_with(vec![effect]);
    world.mines_when_looked_at = true;
}

fn pushes(node: &StandInNode) -> usize {
    node.world().calls.iter().filter(|call| *call == "Filecoin.MpoolPushMessage").count()
}

#[test]
fn a_sector_is_sealed_for_a_full_node_s_chain() {
    // The node answers while this thread waits for processes.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(World::new()));
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    parameters::generate(home);

    let init = ["init", "--actor", "t01000"];
    let other =
        refused(sealyard(home).args(init).args(["--sector-size", "8MiB"]).env(FULL_NODE, node.api_info()), 9);
    assert!(other.contains("leave --sector-size out"), "{other}");
    let made = ok(sealyard(home).args(init).env(FULL_NODE, node.api_info()));
    assert!(made.contains("on standin with 2KiB sectors"), "{made}");
    let without = refused(sealyard(home).args(["run", "--listen", "127.0.0.1:0"]).env_remove(FULL_NODE), 9);
    assert!(without.contains("MGR063"), "{without}");
    let config = "[chain]\npre_commit_batch = 1\nprove_commit_batch = 1\n";
    fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");

    let shown = manager(home, &node, &[]);
    ok(sealyard(home).args(["sectors", "pledge"]));
    until(home, "PreCommitting");
    let why = || json(home, &["sealing", "why", "1"]);
    let told = |why: &Value| {
        why["summary"].as_str().is_some_and(|text| text.contains("PreCommitSectorBatch2 to f01000"))
    };
    let why = ask_until("what would be sent", PROVING_MAX, why, told);
    assert_eq!((why["waits_for"].as_str(), pushes(&node)), (Some("operator"), 0), "{why:#}");
    drop(shown);

    let _manager = manager(home, &node, &["--send-messages"]);
    let waits = until(home, "PreCommitWait");
    let sealed = waits["comm_r"].as_str().expect("CommR").to_owned();
    let (ticket_epoch, number) = (waits["ticket_epoch"].as_i64().expect("a height"), 1);
    let promised = PreCommitted {
        number,
        proof: 5,
        sealed: sealed.clone(),
        ticket_epoch,
        deals: Vec::new(),
        unsealed: None,
    };
    land(&node, Effect::PreCommit(promised));
    until(home, "CommitWait");
    land(&node, Effect::Prove(Proven { number, proof: 5, sealed, key: None }));
    let proven = until(home, "Proving");
    assert_eq!((&proven["verified"], &proven["chain"]), (&Value::from(true), &Value::from("lotus")));
    assert_eq!(pushes(&node), 2, "each message is sent once");
}

/// Who reads the exit code alone must not take a question that was not answered for a good answer.
#[test]
fn what_a_full_node_does_not_say_is_no_good_answer() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(World::new()));
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "t01000"]).env(FULL_NODE, node.api_info()));
    let _manager = manager(home, &node, &[]);
    let check = ["proving", "check"];
    assert!(ok(sealyard(home).args(check)).contains("nothing to check"));
    node.world().remembers_from = i64::MAX;
    let told = refused(sealyard(home).args(check), 1);
    assert!(told.contains("on chain that no path has is not known now"), "{told}");
    assert!(told.contains("StateMinerPartitions") && told.contains("failed to load state tree"), "{told}");
}
