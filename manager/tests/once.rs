//! Each message is on chain once, whatever the node says after it has taken it, and when the records of it are lost.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chain::sending::Sending;
use rpc::extension::SectorDetail;
use sealtasks::{FailureClass, FileTypes, SectorId, SectorNumber};
use standin::{AfterPush, PRE_COMMIT, PROVE_COMMIT, StandInNode};
use world::fake_worker::{Behaviour, FakeWorker};
use world::{World, attempts};
use yard::{AT_ONCE, calls, land, pledge, state, why, why_of, yard};

/// Batches that are never full.
const WAITING: &str = "[chain]\npre_commit_batch = 2\nprove_commit_batch = 2\n";
/// The proofs alone wait.
const PROOFS_WAIT: &str = "[chain]\npre_commit_batch = 1\nprove_commit_batch = 2\n";

/// The node takes a batch's message of either kind and does not say so: at the first look for it it is found.
#[tokio::test]
async fn a_message_that_was_taken_without_an_answer_is_not_sent_again() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().after_push = AfterPush::Close;
    let (world, _worker) = yard(&node, Sending::On, WAITING).await;
    pledge(&world, 2).await;
    for number in [1, 2] {
        state(&world, number, "PreCommitWait").await;
    }
    node.world().after_push = AfterPush::Error(1, "failed to save nonce: no space left on device".to_owned());
    land(&node);
    for number in [1, 2] {
        state(&world, number, "Proving").await;
    }
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// So many looks at the head go by.
async fn looks_pass(node: &StandInNode, looks: usize) {
    let goal = calls(node, "ChainHead") + looks;
    let wait = async {
        while calls(node, "ChainHead") < goal {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::LIMIT, wait).await.expect("it looks");
}

/// Somebody between has given up waiting for the node, which is at work on it still.
#[tokio::test]
async fn a_message_that_comes_to_light_late_is_not_sent_twice_and_keeps_no_other_one_waiting() {
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.after_push = AfterPush::Error(-32603, "upstream timed out".to_owned());
        chain.held_back = Some(Vec::new());
    }
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    why(&world, "if it is nowhere at height 1010").await;
    let held = {
        let mut chain = node.world();
        chain.after_push = AfterPush::Answer;
        chain.held_back.take().expect("it is held back")
    };
    pledge(&world, 1).await;
    state(&world, 2, "PreCommitWait").await;
    node.world().mine_many(8);
    looks_pass(&node, 5).await;
    assert_eq!(state(&world, 1, "PreCommitting").await.last_error, "");
    node.world().mempool.extend(held);
    looks_pass(&node, 5).await;
    land(&node);
    for number in [1, 2] {
        state(&world, number, "Proving").await;
    }
    let sent = [PRE_COMMIT, PROVE_COMMIT].map(|method| node.world().sent(method).len());
    assert_eq!(sent, [2, 2]);
    world.handle.stop().await;
}

/// What a node says that has failed, perhaps before it took the message.
fn not_taken() -> Option<(i64, String)> {
    Some((1, "mpool push: failed to push message: try again".to_owned()))
}

/// A sector of whose message nobody knows whether it was sent. It is nowhere.
async fn in_doubt(node: &StandInNode, config: &str) -> (World, Arc<FakeWorker>) {
    node.world().push_fails = not_taken();
    doubted(node, config, "if it is nowhere at height 1010").await
}

/// Sector 1 with a pre-commitment of which the manager says this.
async fn doubted(node: &StandInNode, config: &str, words: &str) -> (World, Arc<FakeWorker>) {
    let (world, worker) = yard(node, Sending::On, config).await;
    pledge(&world, 1).await;
    why(&world, words).await;
    (world, worker)
}

/// A node that has failed before it took the message.
#[tokio::test]
async fn a_message_that_is_nowhere_after_so_long_is_sent_again_once() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = in_doubt(&node, AT_ONCE).await;
    {
        let mut chain = node.world();
        chain.push_fails = None;
        chain.mine_many(9);
    }
    looks_pass(&node, 5).await;
    assert_eq!((calls(&node, "MpoolPushMessage"), node.world().head().height), (1, 1009));
    node.world().mine();
    state(&world, 1, "PreCommitWait").await;
    assert_eq!((calls(&node, "MpoolPushMessage"), node.world().mempool.len()), (2, 1));
    world.handle.stop().await;
}

/// What holds other messages back holds back what is sent again, too, unless its last height is near.
#[tokio::test]
async fn what_is_sent_again_minds_the_base_fee() {
    let node = StandInNode::start(standin::World::new()).await;
    let config = format!("{AT_ONCE}base_fee_max = \"0.0000000000000001\"\n");
    let (world, _worker) = in_doubt(&node, &config).await;
    {
        let mut chain = node.world();
        (chain.push_fails, chain.base_fee) = (None, 101);
        chain.mine_many(10);
    }
    why(&world, "it is not sent again now: the base fee of 0.000000000000000101 FIL is above").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 1);
    {
        let mut chain = node.world();
        chain.base_fee = 100;
        chain.mine_many(10);
    }
    state(&world, 1, "PreCommitWait").await;

    // The ticket of the second is of height 120, and good for 3780.
    node.world().push_fails = not_taken();
    pledge(&world, 1).await;
    why_of(&world, 2, "if it is nowhere at height 1030").await;
    {
        let mut chain = node.world();
        (chain.push_fails, chain.base_fee) = (None, 101);
        chain.mine_at(3600, Vec::new());
    }
    state(&world, 2, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 4);
    world.handle.stop().await;
}

/// The actor would refuse it as often as it is sent, whatever the node says of it.
#[tokio::test]
async fn a_message_that_is_nowhere_when_its_ticket_has_expired_is_not_sent_again_and_its_replica_made_anew() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = in_doubt(&node, AT_ONCE).await;
    worker.script("PC1", Behaviour::Hold);
    // Its ticket is of height 100, and good for 3780.
    node.world().mine_at(3881, Vec::new());
    let words = "its ticket of height 100 was good";
    let is_anew =
        |sector: &SectorDetail| attempts(sector, "PC1").len() == 2 && sector.last_error.contains(words);
    world.sector(1, is_anew).await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 1);
    node.world().push_fails = None;
    worker.call_of("PC1").await;
    let held = worker.call_of("PC1").await;
    worker.finish(&held).await;
    let sent = state(&world, 1, "PreCommitWait").await;
    assert_eq!((sent.ticket_epoch, calls(&node, "MpoolPushMessage")), (2981, 2));
    world.handle.stop().await;
}

/// As long as any other, however long nobody knew of it.
#[tokio::test]
async fn what_is_sent_again_late_has_time_to_land() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = in_doubt(&node, AT_ONCE).await;
    {
        let mut chain = node.world();
        chain.push_fails = None;
        chain.mine_at(2000, Vec::new());
    }
    state(&world, 1, "PreCommitWait").await;
    // For a while the node has it no more, also after a restart of the manager.
    let evicted = std::mem::take(&mut node.world().mempool);
    let searched = async |times: usize| {
        let goal = calls(&node, "StateSearchMsg") + times;
        let wait = async {
            while calls(&node, "StateSearchMsg") < goal {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(world::LIMIT, wait).await.expect("it is followed");
    };
    searched(2).await;
    let world = world.restart().await;
    searched(2).await;
    assert_eq!(state(&world, 1, "PreCommitWait").await.last_error, "");
    node.world().mempool = evicted;
    land(&node);
    // It has no worker.
    state(&world, 1, "Committing").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// A node that takes messages without saying so, keeps them back, and does not know what landed before height 200.
async fn forgetful() -> StandInNode {
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.after_push = AfterPush::Error(-32603, "upstream timed out".to_owned());
        chain.held_back = Some(Vec::new());
        chain.remembers_from = 200;
    }
    node
}

/// A sector whose pre-commitment such a node took, of which it does not tell.
async fn untold(node: &StandInNode, config: &str) -> (World, Arc<FakeWorker>) {
    doubted(node, config, "the full node does not tell: ").await
}

/// Why is said, and what the chain says of the sector itself suffices.
#[tokio::test]
async fn what_landed_where_the_node_cannot_look_is_not_sent_again() {
    let node = forgetful().await;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    for (goal, pushed) in [("PreCommitting", 1), ("SubmitCommit", 2)] {
        state(&world, 1, goal).await;
        let told = why(&world, "the full node does not tell: ").await;
        assert!(told.summary.contains("failed to load tipset at height 1"), "{told:?}");
        assert_eq!((told.sector_state.as_str(), node.world().pushed.len()), (goal, pushed));
        let mut chain = node.world();
        chain.let_in();
        chain.held_back = Some(Vec::new());
        chain.mine_many(20);
    }
    state(&world, 1, "Proving").await;
    assert_eq!(node.world().pushed.len(), 2);
    world.handle.stop().await;
}

/// What landed without the node's telling is this manager's still: sealed again, its sector is not taken for somebody else's.
#[tokio::test]
async fn what_landed_where_the_node_cannot_look_may_be_sealed_again() {
    let node = forgetful().await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    worker.script("C1", Behaviour::Hold);
    worker.script("C1", Behaviour::Hold);
    pledge(&world, 1).await;
    why(&world, "the full node does not tell: ").await;
    {
        let mut chain = node.world();
        chain.let_in();
        chain.after_push = AfterPush::Answer;
        chain.mine_many(21);
    }
    // What Commit1 says twice condemns the replica; an operator's word between would have it begin anew.
    let first = worker.call_of("C1").await;
    worker.fail_as(&first, FailureClass::BadData).await;
    state(&world, 1, "ComputeProofFailed").await;
    let due = "UPDATE sector SET record = json_set(record, '$.retry.when.not_before_ms', 0)";
    let world = world.restart_on(|db| assert_eq!(db.execute(due, ()).expect("SQLite"), 1)).await;
    world.join(&worker).await;
    worker.declare(first.call.sector, FileTypes::UNSEALED | FileTypes::SEALED | FileTypes::CACHE).await;
    worker.fail_as(&worker.call_of("C1").await, FailureClass::BadData).await;
    state(&world, 1, "ComputeProofFailed").await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
    land(&node);
    let done = state(&world, 1, "Proving").await;
    assert_eq!(attempts(&done, "PC1").len(), 2, "{done:#?}");
    assert_eq!(node.world().pushed.len(), 2, "its pre-commitment counts");
    world.handle.stop().await;
}

/// Of what never landed the sector's state shows nothing, and when that can change no more it is sent again, as the same message.
#[tokio::test]
async fn what_is_nowhere_where_the_node_cannot_look_is_sent_again_under_its_id() {
    let node = forgetful().await;
    let (world, _worker) = untold(&node, AT_ONCE).await;
    {
        let mut chain = node.world();
        (chain.held_back, chain.after_push) = (None, AfterPush::Answer);
        chain.mine_at(1900, Vec::new());
    }
    // It may be reorganised back still.
    why(&world, "it is asked again at height 1920").await;
    assert_eq!(node.world().pushed.len(), 1);
    node.world().mine_at(1920, Vec::new());
    state(&world, 1, "PreCommitWait").await;
    {
        let chain = node.world();
        let [first, second] = &chain.pushed[..] else { panic!("{:?}", chain.pushed) };
        assert_eq!(first.spec, second.spec, "its id is one of them");
        assert_eq!(first.message, second.message);
    }
    world.handle.stop().await;
}

/// Not that the node does not tell is what it waits for: it goes as soon as it may.
#[tokio::test]
async fn what_the_base_fee_holds_back_where_the_node_cannot_look_goes_when_that_has_fallen() {
    let node = forgetful().await;
    let config = format!("{AT_ONCE}base_fee_max = \"0.0000000000000001\"\n");
    let (world, _worker) = untold(&node, &config).await;
    {
        let mut chain = node.world();
        (chain.held_back, chain.after_push, chain.base_fee) = (None, AfterPush::Answer, 101);
        chain.mine_at(1910, Vec::new());
    }
    why(&world, "it is not sent again now: the base fee of 0.000000000000000101 FIL is above").await;
    assert_eq!(node.world().pushed.len(), 1);
    {
        let mut chain = node.world();
        chain.base_fee = 100;
        chain.mine_at(1920, Vec::new());
    }
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(node.world().pushed.len(), 2);
    world.handle.stop().await;
}

/// What is sent again without an answer has as long to show as what was sent first, also after a restart.
#[tokio::test]
async fn what_is_sent_again_where_the_node_cannot_look_is_not_sent_a_third_time_soon() {
    let node = forgetful().await;
    let (mut world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    why(&world, "it is asked again at height 1010").await;
    // At the last of these heights it is 901 heights old again.
    for (height, again, pushed) in [(1920, 1940, 2), (1940, 1980, 2), (1950, 1970, 2), (2821, 2861, 3)] {
        node.world().mine_at(height, Vec::new());
        why(&world, &format!("it is asked again at height {again}")).await;
        assert_eq!(node.world().pushed.len(), pushed, "at height {height}");
        if again == 1980 {
            world = world.restart().await;
            why(&world, "it is asked again at height 1950").await;
        }
    }
    world.handle.stop().await;
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).expect("it goes");
    }
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
}

/// A manager that sends at once, made of the backup that was taken before the message was sent; its sector gets there.
async fn taken_over(world: World, worker: &Arc<FakeWorker>, config: &str, goal: &str) -> World {
    let world = world
        .restart_with(|dir| {
            copy(&dir.join("backup"), &dir.join("repo"));
            std::fs::write(dir.join("repo/config.toml"), config).expect("config.toml");
        })
        .await;
    world.join(worker).await;
    worker.declare(SectorId::new(1000, 1), FileTypes::SEALED | FileTypes::CACHE).await;
    state(&world, 1, goal).await;
    world
}

/// The records of both messages are lost while these wait for a block, and while they lie in the head, whose messages are in no
/// sector's state yet.
#[tokio::test]
async fn what_was_sent_after_the_backup_that_is_taken_over_from_is_not_sent_again() {
    let node = StandInNode::start(standin::World::new()).await;
    let (mut world, worker) = yard(&node, Sending::On, WAITING).await;
    pledge(&world, 1).await;
    for (config, goal, sent) in [(PROOFS_WAIT, "PreCommitWait", 1), (AT_ONCE, "CommitWait", 2)] {
        why_of(&world, 1, "its message waits for its batch").await;
        node.world().mines_when_looked_at = false;
        world = world.restart_with(|dir| copy(&dir.join("repo"), &dir.join("backup"))).await;
        world = taken_over(world, &worker, config, goal).await;
        assert_eq!((calls(&node, "MpoolPushMessage"), node.world().mempool.len()), (sent, 1), "{goal}");
        world = taken_over(world, &worker, config, goal).await;
        assert_eq!((calls(&node, "MpoolPushMessage"), node.world().mempool.len()), (sent, 1), "{goal}");
        node.world().mine();
        world = taken_over(world, &worker, config, goal).await;
        assert_eq!(calls(&node, "MpoolPushMessage"), sent, "{goal}: it lies in the head");
        node.world().mines_when_looked_at = true;
    }
    state(&world, 1, "Proving").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// Anybody may sign such a message; no block would have it.
#[tokio::test]
async fn a_stranger_s_message_that_names_a_sector_keeps_it_neither_waiting_nor_is_its_own() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    world.handle.stop().await;
    let mut theirs = std::mem::take(&mut node.world().mempool);
    theirs[0]["Message"]["From"] = "f3stranger".into();

    // However many there are, nobody is looked up for them.
    for other in 0..20 {
        let mut copy = theirs[0].clone();
        copy["CID"]["/"] = format!("bafy2bzacestranger{other}").into();
        copy["Message"]["To"] = format!("f2stranger{other}").into();
        theirs.push(copy);
    }

    let node = StandInNode::start(standin::World::new()).await;
    node.world().mempool = theirs;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 1, "its own message was sent");
    assert_eq!(calls(&node, "StateLookupID"), 0);
    world.handle.stop().await;
}
