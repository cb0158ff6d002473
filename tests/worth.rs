//! A lost sector that its chain has otherwise than it was sealed is refused by name before anything is begun, by the running
//! manager and on one machine alone; the others of the same call go on. With real proofs up to PreCommit2.

mod standin;
mod system;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sealtasks::{Commitment, SealedCid};
use serde_json::{Value, json};
use standin::{Effect, PreCommitted, Proven, StandInNode, World};
use system::{COMMAND_MAX, Daemon, ok, run_within, sealyard, text};

/// A 2 KiB sector takes seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
const FULL_NODE: &str = "FULLNODE_API_INFO";
/// Sectors that are refused, and what is said of each.
const REFUSED: [(u64, &str); 4] = [
    (4, "CHN11: s-t01000-4 was snapped"),
    (5, "CHN12: the chain has s-t01000-5 with CommR "),
    (6, "CHN13: the chain has no live sector s-t01000-6"),
    (9, "CHN13: the chain has no live sector s-t01000-9"),
];

fn sealed(byte: u8) -> String {
    SealedCid::new(Commitment::new([byte; 32])).to_string()
}

/// 4 is snapped, 5 has another CommR, 6 is terminated, 7 is as the file says.
fn world() -> World {
    let mut world = World::new();
    let promised = |number: u64| {
        let (sealed, deals) = (sealed(1), vec![]);
        Effect::PreCommit(PreCommitted { number, proof: 5, sealed, ticket_epoch: 90, deals, unsealed: None })
    };
    let proven = |number: u64, byte: u8, key: Option<String>| {
        Effect::Prove(Proven { number, proof: 5, sealed: sealed(byte), key })
    };
    world.mine_with([4, 5, 6, 7].map(promised).to_vec());
    world.mine_with(vec![
        proven(4, 2, Some(sealed(1))),
        proven(5, 2, None),
        proven(6, 1, None),
        proven(7, 1, None),
    ]);
    world.mine_with(vec![Effect::Terminate(6)]);
    world.mine();
    world
}

fn write(home: &Path, name: &str, numbers: &[u64]) {
    let entry = |number: &u64| {
        json!({
            "SectorNumber": number, "Ticket": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "SealProof": 5,
            "SealedCID": {"/": sealed(1)},
        })
    };
    let entries: Vec<Value> = numbers.iter().map(entry).collect();
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": entries});
    fs::write(home.join(name), file.to_string()).expect("the file");
}

/// What it says when it ends with this exit code.
fn ends(command: &mut Command, code: i32) -> String {
    let output = run_within(command, COMMAND_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

fn are_named(told: &str) {
    for (number, why) in REFUSED {
        let of = |line: &&str| line.contains(&format!("sector {number} is not back: ")) && line.contains(why);
        assert!(told.lines().any(|line| of(&line)), "{why}: {told}");
    }
}

#[test]
fn what_the_chain_has_otherwise_is_refused_by_name_and_the_others_go_on() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    // The node answers while this thread waits for processes.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let node = runtime.block_on(StandInNode::start(world()));
    let asking = |words: &[&str]| {
        let mut command = sealyard(&home);
        command.args(words).env(FULL_NODE, node.api_info());
        command
    };
    write(&home, "refused.json", &REFUSED.map(|(number, _)| number));
    write(&home, "lost.json", &[4, 5, 6, 7, 9]);
    let begun = || ["temp", "sector"].iter().any(|dir| home.join(dir).exists());

    // Alone: nothing is made for nothing; a node that does not say is no good answer, and without one that is said.
    let told = ends(&mut asking(&["repair", "run", "--metadata", "refused.json"]), 1);
    are_named(&told);
    node.world().remembers_from = i64::MAX;
    let told = ends(&mut asking(&["recover", "--metadata", "lost.json", "7"]), 1);
    assert!(told.contains("sector 7 is not back: CHN02") && told.contains("state tree"), "{told}");
    node.world().remembers_from = 0;
    let gone = "eyJhbGciOiJIUzI1NiJ9.stand.in:http://127.0.0.1:1";
    let told = ends(sealyard(&home).args(["recover", "--metadata", "lost.json"]).env(FULL_NODE, gone), 5);
    assert!(told.contains(&format!("unset {FULL_NODE}")), "{told}");
    assert!(!begun(), "something was begun");
    let mut unasked = sealyard(&home);
    let nested = ["--sealing-temp", "no", "--sealing-result", "no/t", "7"];
    unasked.env_remove(FULL_NODE).args(["recover", "--metadata", "lost.json"]).args(nested);
    let told = ends(&mut unasked, 2);
    assert!(told.contains(&format!("{FULL_NODE} is not set, so no chain was asked")), "{told}");

    // The one that is on chain as the file says is sealed: hours later it shows that the file's ticket is another's.
    let goes_on = |command: &mut Command| {
        let output = run_within(command, SEALING_MAX);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        are_named(&told);
        assert!(
            told.contains("sector 7 is not back: ") && told.contains("sealed again it has CommR"),
            "{told}"
        );
        assert!(text(&output.stdout).contains("0 of 5 sectors are back"), "{told}");
    };
    goes_on(&mut asking(&["repair", "run", "--metadata", "lost.json"]));

    // By a manager, on its own chain.
    ok(&mut asking(&["init", "--actor", "t01000"]));
    let mut manager = Daemon::start("manager", &mut asking(&["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    goes_on(sealyard(&home).args(["repair", "run", "--manager", "--metadata", "lost.json"]));
    let listed = ok(sealyard(&home).args(["sectors", "list", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
}
