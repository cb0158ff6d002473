//! Blocks that never were: a pre-commitment that is nowhere is put on chain again; one that waits among the node's messages is not
//! sent twice.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use chain::sending::Sending;
use sealtasks::SectorNumber;
use serde_json::Value;
use standin::{PRE_COMMIT, StandInNode};
use yard::{AT_ONCE, land, pledge, state, yard};

/// Whether the node keeps the messages of blocks that never were.
#[derive(Clone, Copy, PartialEq)]
enum Mempool {
    Keeps,
    Forgets,
}

/// Takes the block with the last message of this method, and all above it, off the chain. Nothing is mined from then on.
fn take_off(node: &StandInNode, method: u64, mempool: Mempool) {
    let mut world = node.world();
    world.mines_when_looked_at = false;
    let is_in = |messages: &[Value]| messages.iter().any(|signed| signed["Message"]["Method"] == method);
    let at = world.chain.iter().rposition(|tipset| is_in(&tipset.messages)).expect("it is on chain");
    let count = world.chain.len() - at;
    world.reorganise(count);
    if mempool == Mempool::Forgets {
        world.mempool.clear();
    }
}

/// How many messages of a method were sent, and how many are on chain now.
fn counted(node: &StandInNode, method: u64) -> (usize, usize) {
    let world = node.world();
    let all = world.chain.iter().flat_map(|tipset| &tipset.messages);
    (world.sent(method).len(), all.filter(|signed| signed["Message"]["Method"] == method).count())
}

/// Takes a sector's pre-commitment off the chain while its seed is waited for, until the sector has noticed and wants it there
/// again; gives how many messages were sent then, and how many are on chain in the end.
async fn lost_in_wait_seed(mempool: Mempool) -> (usize, usize) {
    let node = StandInNode::start(standin::World { challenge_delay: 500, ..standin::World::new() }).await;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "WaitSeed").await;
    take_off(&node, PRE_COMMIT, mempool);
    // The chain grows without the message.
    let waiting = std::mem::take(&mut node.world().mempool);
    node.world().mines_when_looked_at = true;
    let gone = state(&world, 1, "PreCommitFailed").await;
    assert!(gone.last_error.contains("the chain has no pre-commitment"), "{gone:#?}");
    assert!(!gone.last_error.contains("sectors retry"), "it goes on by itself, in a minute: {gone:#?}");
    {
        let mut chain = node.world();
        chain.mines_when_looked_at = false;
        chain.mempool = waiting;
    }
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("now");
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "WaitSeed").await;
    world.handle.stop().await;
    counted(&node, PRE_COMMIT)
}

#[tokio::test]
async fn a_pre_commitment_that_is_nowhere_while_its_seed_is_waited_for_is_sent_again() {
    assert_eq!(lost_in_wait_seed(Mempool::Forgets).await, (2, 1));
}

#[tokio::test]
async fn a_pre_commitment_that_waits_among_the_messages_again_is_not_sent_twice() {
    assert_eq!(lost_in_wait_seed(Mempool::Keeps).await, (1, 1));
}
