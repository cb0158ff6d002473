//! `repair export`: lost sectors read from a stand-in for a full node into filecoin-sealer-recover's file.

mod standin;
mod system;

use std::fs;
use std::path::Path;
use std::process::Output;

use sealtasks::{ActorId, Commitment, SealedCid, UnsealedCid};
use standin::{Deal, Effect, PreCommitted, Proven, StandInNode, World, randomness_text};
use system::{COMMAND_MAX, refused, run_within, sealyard, text};

fn sealed(number: u8) -> String {
    SealedCid::new(Commitment::new([number; 32])).to_string()
}

fn unsealed(number: u8) -> String {
    UnsealedCid::new(Commitment::new([number; 32])).to_string()
}

/// Sectors 1 and 3 of zeroes, 2 with a deal, 4 snapped.
fn world() -> World {
    let mut world = World::new();
    world.deals.insert(71, Deal { piece: unsealed(1), size: 1024 });
    let promised = |number: u8, deals: Vec<u64>| {
        let data = (!deals.is_empty()).then(|| unsealed(9));
        let number = u64::from(number);
        let sealed = sealed(u8::try_from(number).expect("small"));
        Effect::PreCommit(PreCommitted { number, proof: 5, sealed, ticket_epoch: 90, deals, unsealed: data })
    };
    let proven = |number: u8, key: Option<String>| {
        Effect::Prove(Proven { number: number.into(), proof: 5, sealed: sealed(number), key })
    };
    world.mine_with(vec![
        promised(1, vec![]),
        promised(2, vec![71]),
        promised(3, vec![]),
        promised(4, vec![]),
    ]);
    world.mine_with(vec![proven(1, None), proven(2, None), proven(4, Some(sealed(40)))]);
    world.mine();
    world
}

async fn export(home: &Path, node: &StandInNode, words: &[&str]) -> Output {
    let mut command = sealyard(home);
    command.args(words).env("FULLNODE_API_INFO", node.api_info_ws());
    let run = tokio::task::spawn_blocking(move || run_within(&mut command, COMMAND_MAX));
    run.await.expect("the command ran")
}

/// Byte for byte what filecoin-sealer-recover would write.
fn expected() -> String {
    let ticket = randomness_text(5, 90, "QwDoBw==", 0);
    let sector = |number: u8| {
        format!(
            "\t\t{{\n\t\t\t\"SectorNumber\": {number},\n\t\t\t\"Ticket\": \"{ticket}\",\n\t\t\t\"SealProof\": 5,\n\t\t\t\"SealedCID\": {{\n\t\t\t\t\"/\": \"{}\"\n\t\t\t}}\n\t\t}}",
            sealed(number)
        )
    };
    format!(
        "{{\n\t\"Miner\": \"f01000\",\n\t\"SectorSize\": 2048,\n\t\"SectorInfos\": [\n{},\n{}\n\t]\n}}",
        sector(1),
        sector(3)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn sectors_are_exported_and_the_others_are_named() {
    let node = StandInNode::start(world()).await;
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("sectors-recovery-f01000.json");

    let output = export(home.path(), &node, &["repair", "export", "--miner", "f01000", "1", "3"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "sectors-recovery-f01000.json   2 sectors\n");
    assert_eq!(fs::read_to_string(&file).expect("a file"), expected());

    // The short name, ranges, pieces of a deal; a snapped sector and one that never was are named, the rest is written.
    let output = export(home.path(), &node, &["export", "--miner", "t01000", "1-4,9"]).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("sector 4: EXP02: it was snapped"), "{stderr}");
    assert!(stderr.contains("sector 9: EXP01: the chain knows no such sector"), "{stderr}");
    assert!(stderr.contains("error[1]: 2 of 5 sectors are not exported: 4 9"), "{stderr}");
    let metadata = chain::recovery::parse(&fs::read(&file).expect("a file")).expect("its own form");
    assert_eq!((metadata.miner, metadata.sectors.len()), (ActorId::new(1000), 3));
    let piece = &metadata.sectors[1].pieces[0];
    assert_eq!((piece.size.get(), piece.cid.to_string()), (1024, unsealed(1)));

    // Nothing to write: the older file stays.
    let before = fs::read(&file).expect("a file");
    let output = export(home.path(), &node, &["repair", "export", "--miner", "f01000", "9", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&file).expect("a file"), before);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["file"], serde_json::Value::Null);
    assert_eq!(told["failed"][0]["code"], "EXP01");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_one_clear_line() {
    let home = tempfile::tempdir().expect("a directory");
    let words = |miner: &'static str, number: &'static str| ["repair", "export", "--miner", miner, number];
    let refuse = |words: [&str; 5], info: &str, code| {
        refused(sealyard(home.path()).args(words).env("FULLNODE_API_INFO", info), code)
    };
    tokio::task::block_in_place(|| {
        let mut command = sealyard(home.path());
        let line = refused(command.args(words("f01000", "1")).env_remove("FULLNODE_API_INFO"), 9);
        assert!(line.contains("FULLNODE_API_INFO is not set"), "{line}");
        assert!(refuse(words("f01000", "1"), "nonsense", 9).contains("has no address"));
        assert!(refuse(words("f3abc", "1"), "t:http://127.0.0.1:1", 2).contains("no miner address"));
        assert!(refuse(words("f01000", "5-3"), "t:http://127.0.0.1:1", 2).contains("runs backwards"));
        refuse(words("f01000", "1"), "t:http://127.0.0.1:1", 5);
    });
    let node = StandInNode::start(World::new()).await;
    let wrong = node.api_info().replace("stand.in", "stranger");
    tokio::task::block_in_place(|| refuse(words("f01000", "1"), &wrong, 6));
    assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0, "nothing is written");
}
