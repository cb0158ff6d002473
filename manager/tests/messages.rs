//! What the manager puts on chain, as a node gets it: read by the stand-in from the messages alone, and followed by what an
//! actor would make of it.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use chain::sending::Sending;
use futures_util::stream;
use manager::state::StateEvent;
use manager::{Repo, add_miner};
use rpc::SectorName;
use rpc::api::PledgeOptions;
use rpc::pipelining::{Batch, Flushed};
use rpc::subject::Subject;
use sealtasks::{ActorId, SectorId};
use serde_json::{Value, json};
use standin::{PRE_COMMIT, PROVE_COMMIT, StandInNode, activations, comm_d, pre_commits};
use tracing::field::{Field, Visit};
use world::canned::Behaviour;
use world::{World, start};
use yard::{AT_ONCE, SECOND, calls, chain, land, lotus, pledge, state, why_about, why_of, yard, yard_of_two};

/// Gives two files for one sector, with a gap between them, and starts it: size and CID of both pieces.
async fn two_files(world: &World) -> Vec<(u64, String)> {
    let api = world.handle.pipeline_api();
    let mut pieces = Vec::new();
    for length in [200_u8, 254] {
        let parts = stream::iter([Ok(vec![length; length.into()].into())]);
        let added = api.add_piece(None, None, Box::pin(parts)).await.expect("the data is taken");
        assert_eq!(added.sector.to_string(), "1");
        pieces.push((added.padded_size, added.cid));
    }
    api.start_sealing(sealtasks::SectorNumber::new(1).into()).await.expect("it starts");
    pieces
}

/// Three sectors, one of them with data, in one message of each kind.
#[tokio::test]
async fn a_batch_says_what_its_sectors_are_and_pays_for_each() {
    let node = StandInNode::start(standin::World::new()).await;
    let config = "[chain]\npre_commit_batch = 3\nprove_commit_batch = 3\n";
    let (world, _worker) = yard(&node, Sending::On, config).await;
    let pieces = two_files(&world).await;
    pledge(&world, 2).await;
    for number in 1..=3 {
        state(&world, number, "PreCommitWait").await;
    }
    let promised = {
        let mut chain = node.world();
        chain.mines_when_looked_at = true;
        let sent = chain.sent(PRE_COMMIT);
        let [(pushed, params)] = &sent[..] else { panic!("{sent:?}") };
        is_for(&pushed.message, &pushed.spec, "3000", "60000000000000000");
        pre_commits(params.clone()).expect("pre-commitments")
    };
    let mut said: Vec<_> = promised.iter().map(|(info, _)| (info.number, info.unsealed.clone())).collect();
    said.sort();
    let data = comm_d(&pieces, 2048);
    assert!(data.is_some(), "{pieces:?}");
    assert_eq!(said, [(1, data), (2, None), (3, None)]);
    for (info, expiration) in &promised {
        let sector = world.sector(info.number, |_| true).await;
        assert_eq!((Some(&info.sealed), info.ticket_epoch), (sector.comm_r.as_ref(), sector.ticket_epoch));
        assert_eq!((info.proof, expiration - 1000), (5, 540 * 2880));
    }

    for number in 1..=3 {
        state(&world, number, "Proving").await;
    }
    {
        let chain = node.world();
        let sent = chain.sent(PROVE_COMMIT);
        let [(pushed, params)] = &sent[..] else { panic!("{sent:?}") };
        is_for(&pushed.message, &pushed.spec, "12000", "90000000000000000");
        let (sectors, proofs) = activations(params.clone()).expect("activations");
        let with_data: Vec<_> = sectors.iter().filter(|sector| sector.number == 1).collect();
        assert_eq!(with_data[0].pieces, pieces, "the files alone; zeros between and behind them are implied");
        let mut named: Vec<u64> = sectors.iter().map(|sector| sector.number).collect();
        named.sort_unstable();
        assert_eq!((named, proofs.len()), (vec![1, 2, 3], 3));
        assert_eq!(chain.present().sectors.len(), 3, "the actor takes all of it");
    }
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// To whom, from whom, how much is sent along and what it may cost.
#[track_caller]
fn is_for(message: &Value, spec: &Value, value: &str, fee: &str) {
    let fields = (&message["To"], &message["From"], &message["Value"], &spec["MaxFee"]);
    assert_eq!(fields, (&json!("f01000"), &json!("f3worker"), &json!(value), &json!(fee)));
    assert_eq!(
        (&message["Version"], &message["Nonce"]),
        (&json!(0), &json!(0)),
        "the node chooses the nonce"
    );
    assert!(spec["MsgUuid"].as_str().is_some_and(|id| id.len() == 36), "{spec}");
}

/// The worker alone, unless the operator names a control address; one that is none of the miner's is refused at the start.
#[tokio::test]
async fn who_pays_is_as_the_operator_says() {
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.keys.push("f3control".to_owned());
        chain.balances.insert("f3control".to_owned(), 10_u128.pow(19));
        chain.mines_when_looked_at = true;
    }
    let named = |address: &str| format!("{AT_ONCE}prove_commit_from = [\"{address}\"]\n");
    let (world, _worker) = yard(&node, Sending::On, &named("f3control")).await;
    pledge(&world, 1).await;
    state(&world, 1, "Proving").await;
    let from: Vec<_> = node.world().pushed.iter().map(|pushed| pushed.message["From"].clone()).collect();
    assert_eq!(from, ["f3worker", "f3control"]);

    let (dir, dialer, _) = world.stop().await;
    let repo = dir.path().join("repo");
    std::fs::write(repo.join("config.toml"), named("f0999")).expect("config.toml");
    let refused =
        start(&repo, &dialer, chain(&node, Sending::On).await).await.err().expect("refused").to_string();
    assert!(refused.contains("MGR065") && refused.contains("f0999 cannot pay"), "{refused}");
    assert!(refused.contains("prove_commit_from"), "{refused}");
}

/// The first goes since it has waited long enough, alone; the second when the base fee has fallen; the third at any, since its
/// ticket is about to expire.
#[tokio::test]
async fn time_base_fee_and_the_last_height_decide() {
    let node = StandInNode::start(standin::World::new()).await;
    let config =
        "[chain]\npre_commit_wait = \"0s\"\npre_commit_batch = 256\nbase_fee_max = \"0.0000000000000001\"\n";
    let (world, _worker) = yard(&node, Sending::On, config).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;

    node.world().base_fee = 101;
    pledge(&world, 1).await;
    let waits = why_of(&world, 2, "base_fee_max").await.summary;
    assert!(waits.contains("0.000000000000000101 FIL to fall to 0.0000000000000001 FIL"), "{waits}");
    assert_eq!(calls(&node, "MpoolPushMessage"), 1);
    node.world().base_fee = 100;
    state(&world, 2, "PreCommitWait").await;

    node.world().base_fee = 101;
    pledge(&world, 1).await;
    why_of(&world, 3, "base_fee_max").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    // Its ticket is of height 100 and lives for 3780.
    node.world().mine_at(3600, Vec::new());
    state(&world, 3, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 3);
    world.handle.stop().await;
}

/// What waits for its batch, once that are these sectors.
async fn batched(world: &World, batch: Batch, numbers: &[u64]) {
    let api = world.handle.pipeline_api();
    let wanted: Vec<_> = numbers.iter().map(|number| SectorId::new(1000, *number)).collect();
    let wait = async {
        while api.batched(batch).await.expect("told") != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::LIMIT, wait).await.expect("they never wait");
}

/// As Lotus's `sectors batching`: the base fee holds a batch up still, its size and its time do not.
#[tokio::test]
async fn what_waits_for_its_batch_is_told_and_goes_when_an_operator_says_so() {
    let node = StandInNode::start(standin::World::new()).await;
    let config =
        "[chain]\npre_commit_batch = 9\nprove_commit_batch = 9\nbase_fee_max = \"0.0000000000000001\"\n";
    let (world, _worker) = yard(&node, Sending::On, config).await;
    let api = world.handle.pipeline_api();
    assert_eq!(api.flush(Batch::PreCommit).await.expect("flushed"), [], "nothing waits");
    pledge(&world, 2).await;
    batched(&world, Batch::PreCommit, &[1, 2]).await;
    assert_eq!(api.batched(Batch::Commit).await.expect("told"), []);
    assert_eq!(api.flush(Batch::Commit).await.expect("flushed"), []);
    assert_eq!(calls(&node, "MpoolPushMessage"), 0);
    let gone = api.flush(Batch::PreCommit).await.expect("flushed");
    let both = [1, 2].map(sealtasks::SectorNumber::new).to_vec();
    let [Flushed { sectors, message: Some(cid), error }] = &gone[..] else { panic!("{gone:?}") };
    assert_eq!((sectors, error.as_str()), (&both, ""));
    assert!(cid.starts_with("bafy2bzacestandinmessage"), "{cid}");
    assert_eq!(api.batched(Batch::PreCommit).await.expect("told"), []);
    state(&world, 1, "PreCommitWait").await;
    state(&world, 2, "PreCommitWait").await;

    node.world().base_fee = 101;
    land(&node);
    batched(&world, Batch::Commit, &[1, 2]).await;
    let dear = api.flush(Batch::Commit).await.expect("flushed");
    assert_eq!((dear.len(), &dear[0].sectors, &dear[0].message), (1, &both, &None), "{dear:?}");
    assert!(dear[0].error.contains("base_fee_max"), "{dear:?}");
    assert_eq!(
        api.batched(Batch::Commit).await.expect("told"),
        [SectorId::new(1000, 1), SectorId::new(1000, 2)]
    );
    assert_eq!(calls(&node, "MpoolPushMessage"), 1);
    // They were told to go: they do as soon as they may.
    node.world().base_fee = 100;
    state(&world, 1, "Proving").await;
    state(&world, 2, "Proving").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// A sector of the second miner is sealed and its pre-commitment sent.
async fn the_second_sends(world: &World, node: &StandInNode) {
    let theirs = PledgeOptions { miner: Some(SECOND), ..PledgeOptions::default() };
    let sector = world.api.pledge(theirs).await.expect("a pledge");
    why_about(world, Subject::Sector(sector), "is on its way").await;
    let sent = node.world().pushed.last().map(|pushed| pushed.message["To"].clone());
    assert_eq!(sent, Some(json!("f02000")));
}

/// What the node does not say of the first miner, of its sectors or of itself, holds up that miner's message alone.
#[tokio::test]
async fn one_miner_s_trouble_stops_no_other_one_s_messages() {
    let node = StandInNode::start(standin::World { others: vec![2000], ..standin::World::new() }).await;
    let (world, worker) = yard_of_two(&node, AT_ONCE).await;
    worker.script("PC2", Behaviour::Hold);
    let sector = world.api.pledge_sector().await.expect("a pledge");
    let call = worker.call_of("PC2").await;
    node.world().unreadable = vec![1000];
    worker.finish(&call).await;
    let own = Subject::Sector(sector);
    why_about(&world, own, "its message waits: the full node does not say what sector").await;
    the_second_sends(&world, &node).await;

    {
        let mut chain = node.world();
        (chain.unreadable, chain.nameless) = (Vec::new(), vec![1000]);
    }
    why_about(&world, own, "who miner f01000 is").await;
    the_second_sends(&world, &node).await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    node.world().nameless.clear();
    why_about(&world, own, "is on its way").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 3);
    world.handle.stop().await;
}

/// Both miners' payers stand in one list: those that are its own pay for each, else its worker.
#[tokio::test]
async fn each_miner_s_messages_are_paid_by_its_own_addresses() {
    let two = standin::World { others: vec![2000], pay_themselves: true, ..standin::World::new() };
    let node = StandInNode::start(two).await;
    {
        let mut chain = node.world();
        for key in ["f3control", "f3control2", "f3worker2"] {
            chain.keys.push(key.to_owned());
            chain.balances.insert(key.to_owned(), 10_u128.pow(19));
        }
        chain.mines_when_looked_at = true;
    }
    let config = format!(
        "{AT_ONCE}pre_commit_from = [\"f3control2\", \"f3control\"]\nprove_commit_from = [\"f3control\"]\n"
    );
    // The list is refused as long as not all are served whose it is.
    let (world, worker) = yard_of_two(&node, AT_ONCE).await;
    let world = world
        .restart_with(|dir| std::fs::write(dir.join("repo/config.toml"), config).expect("config.toml"))
        .await;
    world.join(&worker).await;
    for miner in [SECOND, ActorId::new(1000)] {
        let theirs = PledgeOptions { miner: Some(miner), ..PledgeOptions::default() };
        let sector = world.api.pledge(theirs).await.expect("a pledge");
        let name = SectorName { miner: Some(miner), number: sector.number };
        let proven = async {
            while world.api.sector_detail(name).await.expect("it is there").state != "Proving" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(world::LIMIT, proven).await.expect("proven in time");
    }
    let paid: Vec<_> = node
        .world()
        .pushed
        .iter()
        .map(|pushed| (pushed.message["To"].clone(), pushed.message["From"].clone()))
        .collect();
    let expected =
        [("f02000", "f3control2"), ("f02000", "f3worker2"), ("f01000", "f3control"), ("f01000", "f3control")];
    assert_eq!(paid, expected.map(|(to, from)| (json!(to), json!(from))));

    // Nobody's is refused.
    let (dir, dialer, choice) = world.stop().await;
    let repo = dir.path().join("repo");
    let config = format!("{AT_ONCE}pre_commit_from = [\"f3control2\", \"f0999\"]\n");
    std::fs::write(repo.join("config.toml"), config).expect("config.toml");
    let refused = start(&repo, &dialer, choice).await.err().expect("refused").to_string();
    assert!(refused.contains("MGR065") && refused.contains("f0999 cannot pay"), "{refused}");
}

/// It is left out, aloud; anybody else's is refused still.
#[tokio::test]
async fn a_payer_of_a_miner_that_was_removed_keeps_no_manager_from_starting() {
    let two = standin::World { others: vec![2000], pay_themselves: true, ..standin::World::new() };
    let node = StandInNode::start(two).await;
    {
        let mut chain = node.world();
        chain.keys.push("f3control2".to_owned());
        chain.balances.insert("f3control2".to_owned(), 10_u128.pow(19));
    }
    let with = |payers: &str| format!("{AT_ONCE}pre_commit_from = [{payers}]\n");
    let (world, worker) = yard_of_two(&node, AT_ONCE).await;
    let world = world
        .restart_with(|dir| {
            std::fs::write(dir.join("repo/config.toml"), with("\"f3control2\"")).expect("config.toml")
        })
        .await;
    let removed = StateEvent::MinerRemoved { miner: SECOND, by: "a test".to_owned() };
    let world = world.restart_after(vec![removed]).await;
    world.join(&worker).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(node.world().pushed[0].message["From"], "f3worker");

    let (dir, dialer, choice) = world.stop().await;
    let repo = dir.path().join("repo");
    std::fs::write(repo.join("config.toml"), with("\"f3control2\", \"f0999\"")).expect("config.toml");
    let refused = start(&repo, &dialer, choice).await.err().expect("refused").to_string();
    assert!(refused.contains("MGR065") && refused.contains("f0999 cannot pay"), "{refused}");
}

/// The codes of what is told while it lives, on this thread.
#[derive(Clone, Default)]
struct Codes(Arc<Mutex<Vec<String>>>);

impl Visit for Codes {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "code" {
            self.0.lock().expect("no panic elsewhere").push(format!("{value:?}"));
        }
    }
}

impl tracing::Subscriber for Codes {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Its payers stand in the list still, or again: nobody is told to take them out.
#[tokio::test]
async fn a_miner_that_is_added_again_is_not_one_that_was_removed() {
    let two = standin::World { others: vec![2000], pay_themselves: true, ..standin::World::new() };
    let node = StandInNode::start(two).await;
    let (world, _worker) = yard_of_two(&node, AT_ONCE).await;
    let removed = StateEvent::MinerRemoved { miner: SECOND, by: "a test".to_owned() };
    let (dir, dialer, choice) = world.restart_after(vec![removed]).await.stop().await;
    let repo = dir.path().join("repo");
    let config = format!("{AT_ONCE}pre_commit_from = [\"f3control2\"]\n");
    std::fs::write(repo.join("config.toml"), config).expect("config.toml");
    let codes = Codes::default();
    let _told = tracing::subscriber::set_default(codes.clone());
    let left_over = || {
        let told = std::mem::take(&mut *codes.0.lock().expect("no panic elsewhere"));
        told.iter().filter(|code| code.contains("MGR206")).count()
    };
    start(&repo, &dialer, choice).await.expect("it starts").stop().await;
    assert_eq!(left_over(), 1);
    let again = Repo::open(&repo).expect("the repo is free");
    let by = "a test".to_owned();
    add_miner(&again, SECOND, Some(&*lotus(&node).await), by).await.expect("added");
    assert_eq!(left_over(), 0);
}

/// Who an added miner is the node does not say: the manager starts, that miner waits, and nobody else.
#[tokio::test]
async fn an_added_miner_of_whom_the_node_does_not_say_who_it_is_keeps_nobody_from_starting() {
    let two = standin::World { others: vec![2000], ..standin::World::new() };
    let node = StandInNode::start(two).await;
    let (world, worker) = yard_of_two(&node, AT_ONCE).await;
    let theirs = PledgeOptions { miner: Some(SECOND), ..PledgeOptions::default() };
    let alerts = async |world: &World| {
        let all = world.api.overview().await.expect("told").alerts;
        all.into_iter().map(|alert| (alert.system, alert.subject, alert.text)).collect::<Vec<_>>()
    };
    // A sector of it waits for its message already.
    worker.script("PC2", Behaviour::Hold);
    let waiting = world.api.pledge(theirs).await.expect("a pledge");
    let call = worker.call_of("PC2").await;
    node.world().nameless = vec![2000];
    let world = world.restart().await;
    world.join(&worker).await;
    worker.finish(&call).await;

    let told = alerts(&world).await;
    let [(system, subject, text)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((system.as_str(), subject.as_str()), ("messages", "f02000"));
    assert!(text.contains("who miner f02000 is") && text.contains("could not find"), "{text}");
    let refused = world.api.pledge(theirs).await.expect_err("refused").to_string();
    assert!(refused.contains("MGR203") && refused.contains("who miner f02000 is"), "{refused}");
    let own = world.api.pledge_sector().await.expect("a pledge");
    why_about(&world, Subject::Sector(own), "is on its way").await;
    why_about(&world, Subject::Sector(waiting), "who miner f02000 is").await;
    assert_eq!(node.world().pushed.len(), 1);

    node.world().nameless.clear();
    why_about(&world, Subject::Sector(waiting), "is on its way").await;
    assert_eq!(alerts(&world).await, []);
    world.api.pledge(theirs).await.expect("a pledge");
    world.handle.stop().await;
}
