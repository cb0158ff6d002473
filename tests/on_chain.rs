//! Sectors of a real yard, one of zeros and one with data, with real proofs, for the chain of a stand-in full node: bound to it,
//! shown first, then sent and proven, by managers that die before and behind the push of the proofs' message.

mod standin;
mod system;

use std::fs;
use std::path::Path;

use sealtasks::{Commitment, SealedCid};
use serde_json::Value;
use standin::{Effect, PROVE_COMMIT, Proven, StandInNode, World, activations};
use system::parameters::{self, PROVING_MAX};
use system::{Daemon, ask_until, json, ok, refused, run_within, sealyard, text};

const FULL_NODE: &str = "FULLNODE_API_INFO";

fn until(home: &Path, number: &str, state: &str) -> Value {
    let status = || json(home, &["sectors", "status", number]);
    ask_until(state, PROVING_MAX, status, |status| status["state"] == state)
}

fn manager(home: &Path, node: &StandInNode, args: &[&str]) -> Daemon {
    manager_that_dies(home, node, args, None)
}

/// The same, which dies there.
fn manager_that_dies(home: &Path, node: &StandInNode, args: &[&str], at: Option<&str>) -> Daemon {
    let mut run = sealyard(home);
    run.args(["run", "--listen", "127.0.0.1:0"]).args(args).env(FULL_NODE, node.api_info());
    run.envs(at.map(|at| ("SEALYARD_CRASH_AT", at)));
    let mut manager = Daemon::start("manager", &mut run);
    if at.is_some() {
        manager.expect_or_end("listening on");
    } else {
        manager.expect("listening on");
    }
    manager
}

/// Killed before the message of both proofs is pushed, and once more when the node has it and nobody has noted that.
fn dies_around_the_push(home: &Path, node: &StandInNode, mut manager: Daemon, next: &str) -> Daemon {
    let mark = home.join("died");
    ask_until("the first death", PROVING_MAX, || mark.exists(), |died| *died);
    assert_eq!(
        (manager.end(), pushes(node)),
        (None, 2),
        "killed, not exited, with both pre-commitments sent"
    );
    fs::remove_file(&mark).expect("the mark");
    let mut manager = manager_that_dies(home, node, &["--send-messages"], Some(next));
    ask_until("the second death", PROVING_MAX, || mark.exists(), |died| *died);
    assert_eq!((manager.end(), pushes(node)), (None, 3), "killed, not exited, and the node has the message");
    self::manager(home, node, &["--send-messages"])
}

fn pushes(node: &StandInNode) -> usize {
    node.world().calls.iter().filter(|call| *call == "Filecoin.MpoolPushMessage").count()
}

#[test]
fn sectors_are_sealed_for_a_full_node_s_chain() {
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
    let config = "[chain]\npre_commit_batch = 1\nprove_commit_batch = 2\n";
    fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");

    let shown = manager(home, &node, &[]);
    ok(sealyard(home).args(["sectors", "pledge"]));
    until(home, "1", "PreCommitting");
    let why = || json(home, &["sealing", "why", "1"]);
    let told = |why: &Value| {
        why["summary"].as_str().is_some_and(|text| text.contains("PreCommitSectorBatch2 to f01000"))
    };
    let why = ask_until("what would be sent", PROVING_MAX, why, told);
    assert_eq!((why["waits_for"].as_str(), pushes(&node)), (Some("operator"), 0), "{why:#}");
    let pieces = [("one.car", 200_usize), ("two.car", 508)].map(|(name, length)| {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        fs::write(home.join(name), bytes).expect("a file");
        let given = json(home, &["sectors", "add-piece", name]);
        assert_eq!(given["sector"], 2, "{given:#}");
        (given["padded_size"].as_u64().expect("a size"), given["cid"].as_str().expect("a CID").to_owned())
    });
    ok(sealyard(home).args(["sectors", "start-seal", "2"]));
    drop(shown);

    let [first, next] = ["intended", "answered"]
        .map(|point| format!("manager.message.{point}/ProveCommitSectors3@{}", home.join("died").display()));
    let manager = manager_that_dies(home, &node, &["--send-messages"], Some(&first));
    let waiting = ["1", "2"].map(|number| until(home, number, "PreCommitWait"));
    node.world().mines_when_looked_at = true;
    let _manager = dies_around_the_push(home, &node, manager, &next);
    for (number, waits) in ["1", "2"].into_iter().zip(waiting) {
        let proven = until(home, number, "Proving");
        assert_eq!((&proven["verified"], &proven["chain"]), (&Value::from(true), &Value::from("lotus")));
        assert_eq!((&proven["comm_r"], &proven["comm_d"]), (&waits["comm_r"], &waits["comm_d"]));
    }
    assert_eq!(
        pushes(&node),
        3,
        "each message is sent once, that of both proofs although nobody heard of it"
    );
    the_chain_has_what_was_sealed(home, &node, &pieces);
    what_we_proved_comes_back_from_the_chain(home, &node, &pieces);
    files_of_a_sector_that_lives_on_chain_stay(home);
}

/// Whatever an operator removes: without them the miner pays for faults until the sector is terminated.
fn files_of_a_sector_that_lives_on_chain_stay(home: &Path) {
    let remove = ["sectors", "remove", "--really-do-it", "1"];
    let error = refused(sealyard(home).args(remove), 1);
    assert!(error.contains("MGR190") && error.contains("it is proven on chain"), "{error}");
    ok(sealyard(home).args(remove).arg("--although-on-chain"));
    let survey = ok(sealyard(home).args(["storage", "cleanup"]));
    assert!(survey.contains("sector 1 was removed") && survey.contains("it is proven on chain"), "{survey}");
    let cleaned = json(home, &["storage", "cleanup", "--really-do-it"]);
    let gone = cleaned["cleaned"].as_array().expect("a list").iter().filter(|it| it["kept"].is_null());
    assert_eq!(gone.count(), 0, "{cleaned:#}");
    let found = json(home, &["storage", "find", "1"]).to_string();
    assert!(found.contains("sealed") && found.contains("cache"), "{found}");
}

/// A second life: sealed again by nobody but what the chain tells of our own messages, the data's pieces among that, and the
/// operator's files.
fn what_we_proved_comes_back_from_the_chain(home: &Path, node: &StandInNode, pieces: &[(u64, String)]) {
    let alone = |words: &[&str]| {
        let mut command = sealyard(home);
        command.args(words).env(FULL_NODE, node.api_info());
        command
    };
    ok(&mut alone(&["repair", "export", "--miner", "f01000", "--output", "lost.json", "1-2"]));
    let told: Value =
        serde_json::from_slice(&fs::read(home.join("lost.json")).expect("a file")).expect("JSON");
    let named = |sector: &Value| {
        let all = sector["Pieces"].as_array().cloned().unwrap_or_default();
        all.iter().map(|piece| (piece["Size"].clone(), piece["PieceCID"]["/"].clone())).collect::<Vec<_>>()
    };
    let given: Vec<_> = pieces.iter().map(|(size, cid)| ((*size).into(), cid.as_str().into())).collect();
    assert_eq!(named(&told["SectorInfos"][0]), [], "{told:#}");
    assert_eq!(named(&told["SectorInfos"][1]), given, "{told:#}");

    let mut repair = alone(&["repair", "run", "--metadata", "lost.json", "--parallel", "2"]);
    for ((_, cid), name) in pieces.iter().zip(["one.car", "two.car"]) {
        repair.args(["--piece", &format!("{cid}={name}")]);
    }
    let output = run_within(&mut repair, PROVING_MAX);
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("2 of 2 sectors are back"), "{said}{told}");
    let tree = "sc-02-data-tree-r-last.dat";
    let of_cache = |number: u32, file: &str| format!("cache/s-t01000-{number}/{file}");
    let mut files = vec!["unsealed/s-t01000-2".to_owned()];
    for number in [1, 2] {
        files.push(format!("sealed/s-t01000-{number}"));
        files.extend(["p_aux", tree].map(|file| of_cache(number, file)));
    }
    for file in files {
        let [first, second] =
            [".sealyard", "sector"].map(|dir| fs::read(home.join(dir).join(&file)).expect("a file"));
        assert!(first == second, "{file} is not what it was");
    }
}

/// The node has read it from the messages alone, and has found the data to be what the pre-commitment promised.
fn the_chain_has_what_was_sealed(home: &Path, node: &StandInNode, pieces: &[(u64, String)]) {
    let world = node.world();
    let on_chain = world.present();
    assert!(on_chain.pre_commits.is_empty() && on_chain.sectors.len() == 2, "{on_chain:?}");
    for (number, (_, sector)) in &on_chain.sectors {
        let ours = json(home, &["sectors", "status", &number.to_string()]);
        assert_eq!((&ours["comm_r"], sector.proof), (&Value::from(sector.sealed.as_str()), 5));
    }
    let proven =
        world.sent(PROVE_COMMIT).into_iter().flat_map(|(_, params)| activations(params).expect("sectors").0);
    let with_data =
        proven.filter(|sector| sector.number == 2).map(|sector| sector.pieces).collect::<Vec<_>>();
    assert_eq!(with_data, [pieces], "the files alone; zeros between and behind them are implied");
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
    assert_eq!(json(home, &["info"])["alerts"], Value::Array(Vec::new()));
    let sealed = SealedCid::new(Commitment::new([9; 32])).to_string();
    node.world().mine_with(vec![Effect::Prove(Proven { number: 9, proof: 5, sealed, key: None })]);
    node.world().mine();
    let told = refused(sealyard(home).args(check), 13);
    assert!(told.contains("ALERT: 1 sectors are on chain and in no storage path: 9"), "{told}");
    let alert = || {
        let info = json(home, &["info"]);
        let [alert] = &info["alerts"].as_array().expect("alerts")[..] else { panic!("{info:#}") };
        assert_eq!((&alert["system"], &alert["subject"]), (&"chain-not-held".into(), &"f01000".into()));
        assert!(
            alert["text"].as_str().is_some_and(|text| text.contains("on chain and in no storage path: 9"))
        );
        info["on_chain_only"].clone()
    };
    assert_eq!(alert(), serde_json::json!([9]));

    node.world().remembers_from = i64::MAX;
    assert_eq!(alert(), Value::Null, "nobody has said that it is over");
    let told = refused(sealyard(home).args(check), 1);
    assert!(told.contains("on chain that no path has is not known now"), "{told}");
    assert!(told.contains("StateMinerPartitions") && told.contains("failed to load state tree"), "{told}");
}

/// What is read from a node that lags behind is old, so it is waited for, and that is told; `--nosync` takes it as it is.
#[test]
fn a_node_that_is_behind_is_waited_for() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let behind = World { behind: 100_000, ..World::new() };
    let node = runtime.block_on(StandInNode::start(behind));
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let init = ["init", "--actor", "t01000", "--nosync"];
    ok(sealyard(home).args(init).env(FULL_NODE, node.api_info()));
    drop(manager(home, &node, &["--nosync"]));

    let run = ["run", "--listen", "127.0.0.1:0"];
    let mut waiting = Daemon::start("manager", sealyard(home).args(run).env(FULL_NODE, node.api_info()));
    waiting.expect("the full node is at height 1000, 10000");
    node.world().behind = 0;
    waiting.expect("listening on");
}
