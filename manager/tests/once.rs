//! Each message is on chain once, whatever the node says after it has taken it, and when the records of it are lost.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chain::sending::Sending;
use sealtasks::{FileTypes, SectorId};
use standin::{AfterPush, PRE_COMMIT, PROVE_COMMIT, StandInNode};
use world::World;
use world::fake_worker::FakeWorker;
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

/// A node that has failed before it took the message.
#[tokio::test]
async fn a_message_that_is_nowhere_after_so_long_is_sent_again_once() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().push_fails = Some((1, "mpool push: failed to push message: try again".to_owned()));
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    why(&world, "if it is nowhere at height 1010").await;
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

    let node = StandInNode::start(standin::World::new()).await;
    node.world().mempool = theirs;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 1, "its own message was sent");
    world.handle.stop().await;
}
