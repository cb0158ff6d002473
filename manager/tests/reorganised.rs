//! Blocks that never were: a pre-commitment that is nowhere is put on chain again; one that waits among the node's messages is not
//! sent twice; a proof whose seed has changed is not sent, and made anew.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::sync::Arc;

use chain::sending::Sending;
use sealtasks::SectorNumber;
use serde_json::Value;
use standin::{PRE_COMMIT, PROVE_COMMIT, StandInNode, activations};
use world::canned::Behaviour;
use world::fake_worker::{FakeWorker, Taken};
use world::{LIMIT, World};
use yard::{AT_ONCE, calls, land, pledge, state, why_of, yard};

/// Whether the node keeps the messages of blocks that never were.
#[derive(Clone, Copy, PartialEq)]
enum Mempool {
    Keeps,
    Forgets,
    /// They are in the head when they are looked for.
    Lands,
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
/// again; gives how many messages were sent then, how many are on chain in the end, and how many records there are of them.
async fn lost_in_wait_seed(mempool: Mempool) -> (usize, usize, usize) {
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
        if mempool == Mempool::Lands {
            chain.mine();
        }
    }
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("now");
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "WaitSeed").await;
    let (dir, ..) = world.stop().await;
    let records = std::fs::read_dir(dir.path().join("repo/messages")).expect("the outbox").count();
    let (sent, landed) = counted(&node, PRE_COMMIT);
    (sent, landed, records)
}

#[tokio::test]
async fn a_pre_commitment_that_is_nowhere_while_its_seed_is_waited_for_is_sent_again() {
    assert_eq!(lost_in_wait_seed(Mempool::Forgets).await, (2, 1, 2));
}

#[tokio::test]
async fn a_pre_commitment_that_waits_among_the_messages_again_is_not_sent_twice() {
    assert_eq!(lost_in_wait_seed(Mempool::Keeps).await, (1, 1, 1));
}

/// What was told of it before does not count: it may fail this time.
#[tokio::test]
async fn a_pre_commitment_that_lies_in_the_head_again_is_followed_anew_under_its_record() {
    assert_eq!(lost_in_wait_seed(Mempool::Lands).await, (1, 1, 1));
}

/// Until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what}");
}

/// The last pre-commitment lands again three heights above where it was, and time goes on.
fn move_pre_commitment(node: &StandInNode) {
    take_off(node, PRE_COMMIT, Mempool::Keeps);
    let mut chain = node.world();
    let waiting = std::mem::take(&mut chain.mempool);
    chain.mine_many(3);
    chain.mempool = waiting;
    chain.mine_many(40);
}

/// The sectors of each proof's message that was sent.
fn proven(node: &StandInNode) -> Vec<Vec<u64>> {
    let world = node.world();
    let numbers = |params| {
        let (sectors, _) = activations(params).expect("activations");
        let mut numbers: Vec<u64> = sectors.iter().map(|sector| sector.number).collect();
        numbers.sort_unstable();
        numbers
    };
    world.sent(PROVE_COMMIT).into_iter().map(|(_, params)| numbers(params)).collect()
}

/// How often a proven sector had to wait for another seed.
async fn seeds_changed(world: &World, number: u64) -> usize {
    let log = state(world, number, "Proving").await.log;
    log.iter().filter(|(_, _, text)| text.contains("its seed does not count any more")).count()
}

/// Sector 1, whose proof is being made until its call is finished.
struct Proving {
    node: StandInNode,
    world: World,
    worker: Arc<FakeWorker>,
    call: Taken,
    /// The height of the seed that it is made from.
    seed: i64,
}

async fn proving() -> Proving {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    worker.script("C2", Behaviour::Hold);
    node.world().mines_when_looked_at = true;
    pledge(&world, 1).await;
    let call = worker.call_of("C2").await;
    let seed = state(&world, 1, "Committing").await.seed_epoch;
    Proving { node, world, worker, call, seed }
}

#[tokio::test]
async fn a_proof_whose_pre_commitment_has_moved_while_it_was_made_is_made_anew() {
    let Proving { node, world, worker, call, seed: before } = proving().await;
    move_pre_commitment(&node);
    node.world().mines_when_looked_at = true;
    worker.finish(&call).await;
    let detail = state(&world, 1, "Proving").await;
    assert_eq!(detail.seed_epoch, before + 3);
    assert_eq!(seeds_changed(&world, 1).await, 1);
    assert_eq!((counted(&node, PRE_COMMIT), counted(&node, PROVE_COMMIT)), ((1, 1), (1, 1)));
    world.handle.stop().await;
}

/// Its push was not answered, and it is nowhere: before it is sent again it is judged as any other.
#[tokio::test]
async fn a_proof_in_doubt_whose_seed_has_changed_is_made_anew() {
    let Proving { node, world, worker, call, seed: before } = proving().await;
    {
        let mut chain = node.world();
        chain.mines_when_looked_at = false;
        chain.push_fails = Some((1, "mpool push: failed to push message: try again".to_owned()));
    }
    worker.finish(&call).await;
    why_of(&world, 1, "if it is nowhere at height").await;
    move_pre_commitment(&node);
    {
        let mut chain = node.world();
        (chain.push_fails, chain.mines_when_looked_at) = (None, true);
    }
    let detail = state(&world, 1, "Proving").await;
    assert_eq!((detail.seed_epoch, seeds_changed(&world, 1).await), (before + 3, 1));
    assert_eq!((counted(&node, PRE_COMMIT), counted(&node, PROVE_COMMIT)), ((1, 1), (1, 1)));
    world.handle.stop().await;
}

/// Of three that go together the second's seed changes while its proof waits for the third.
#[tokio::test]
async fn of_a_batch_only_the_proof_whose_seed_has_changed_is_kept_back() {
    let node = StandInNode::start(standin::World::new()).await;
    let config = "[chain]\npre_commit_wait = \"0s\"\npre_commit_batch = 1\nprove_commit_batch = 3\n";
    let (world, _worker) = yard(&node, Sending::On, config).await;
    node.world().mines_when_looked_at = true;
    for number in [1, 2] {
        pledge(&world, 1).await;
        state(&world, number, "SubmitCommit").await;
        // Once for its proof, and twice for its message, which has its place in the batch from then on: before and behind the look
        // for what is under way.
        let drawn = 3 * usize::try_from(number).expect("small");
        until("its seed is drawn", async || calls(&node, "StateGetRandomnessFromBeacon") == drawn).await;
    }
    let seed_of = async |number| state(&world, number, "SubmitCommit").await.seed_epoch;
    let before = [seed_of(1).await, seed_of(2).await];
    move_pre_commitment(&node);
    node.world().mines_when_looked_at = true;
    pledge(&world, 1).await;
    for number in [1, 3] {
        state(&world, number, "Proving").await;
    }
    assert_eq!(proven(&node), [vec![1, 3]]);
    world.sector(2, |detail| detail.state == "SubmitCommit" && detail.seed_epoch == before[1] + 3).await;
    pledge(&world, 2).await;
    for number in [2, 4, 5] {
        state(&world, number, "Proving").await;
    }
    assert_eq!(proven(&node), [vec![1, 3], vec![2, 4, 5]]);
    assert_eq!(state(&world, 1, "Proving").await.seed_epoch, before[0]);
    assert_eq!((seeds_changed(&world, 1).await, seeds_changed(&world, 2).await), (0, 1));
    assert_eq!((counted(&node, PRE_COMMIT), counted(&node, PROVE_COMMIT)), ((5, 5), (2, 2)));
    world.handle.stop().await;
}

/// What a node does not know yet, or says of a chain that it is behind of, throws no proof away.
#[tokio::test]
async fn a_proof_waits_for_a_node_whose_head_lies_below_its_seed() {
    let Proving { node, world, worker, call, seed: before } = proving().await;
    let (kept, height) = {
        let mut chain = node.world();
        chain.mines_when_looked_at = false;
        let kept = chain.chain.clone();
        chain.chain.truncate(2);
        (kept, chain.head().height)
    };
    worker.finish(&call).await;
    why_of(&world, 1, &format!("head is at height {height}, below the sector's seed")).await;
    {
        let mut chain = node.world();
        chain.chain = kept;
        chain.mines_when_looked_at = true;
    }
    let detail = state(&world, 1, "Proving").await;
    assert_eq!((detail.seed_epoch, seeds_changed(&world, 1).await), (before, 0));
    assert_eq!(counted(&node, PROVE_COMMIT), (1, 1));
    world.handle.stop().await;
}
