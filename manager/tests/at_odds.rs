//! What a stand-in's chain says of a miner's sectors is held against what is here again and again, and what is at odds is an
//! alert: sectors that no path has, and sectors that are proven here alone. What a node does not say changes none.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::time::Duration;

use chain::sending::Sending;
use manager::Timing;
use sealtasks::{Commitment, FileTypes, SealedCid, SectorId};
use standin::{Effect, Proven, StandInNode};
use world::{LIMIT, World, start_timed};
use yard::{AT_ONCE, calls, land, pledge, state, yard};

const NO_PATH: &str = "1 sector is on chain and in no storage path: 4;";

fn proven(number: u64) -> Effect {
    let sealed = SealedCid::new(Commitment::new([2; 32])).to_string();
    Effect::Prove(Proven { number, proof: 5, sealed, key: None })
}

/// Starts the manager again, as one that looks every so often.
async fn looking(world: World) -> World {
    let (dir, dialer, chain) = world.stop().await;
    let timing = Timing { on_chain_look: Duration::from_millis(50), ..Timing::default() };
    let started = start_timed(&dir.path().join("repo"), &dialer, chain.clone(), timing).await;
    let handle = started.expect("it starts again");
    World { api: handle.api(), operator: handle.operator_api(), dir, handle, dialer, chain }
}

/// The alerts, once they are so.
async fn alerts(world: &World, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
    let wait = async {
        loop {
            let alerts = world.api.overview().await.expect("an overview").alerts;
            let told = alerts.into_iter().map(|alert| {
                assert_eq!(alert.subject, "f01000");
                let system = if alert.text.contains("in no storage path") {
                    "chain-not-held"
                } else {
                    "chain-not-live"
                };
                assert_eq!(alert.system, system, "{}", alert.text);
                alert.text
            });
            let told: Vec<_> = told.collect();
            if holds(&told) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(told) => told,
        Err(_) => panic!("they never come: {:#?}", world.api.overview().await.map(|told| told.alerts)),
    }
}

/// The only one, once it begins with these words.
async fn alert(world: &World, words: &str) {
    alerts(world, |all| matches!(all, [only] if only.starts_with(words))).await;
}

/// Returns when two looks that began after this was called have ended, whatever came of them.
async fn two_looks(node: &StandInNode) {
    let before = calls(node, "ChainHead");
    let wait = async {
        while calls(node, "ChainHead") < before + 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the manager looks");
}

fn is_mute(node: &StandInNode, mute: bool) {
    node.world().remembers_from = if mute { i64::MAX } else { 0 };
}

#[tokio::test]
async fn what_the_chain_and_the_manager_do_not_agree_about_is_an_alert() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "Proving").await;
    // Somebody else's proof, and from here on no block but those that are made here.
    node.world().mines_when_looked_at = false;
    node.world().mine_with(vec![proven(4)]);
    node.world().mine();
    let world = looking(world).await;
    world.join(&worker).await;
    worker.declare(SectorId::new(1000, 1), FileTypes::SEALED | FileTypes::CACHE).await;
    alert(&world, NO_PATH).await;

    is_mute(&node, true);
    worker.declare(SectorId::new(1000, 4), FileTypes::SEALED | FileTypes::CACHE).await;
    two_looks(&node).await;
    alert(&world, NO_PATH).await;
    is_mute(&node, false);
    alerts(&world, <[String]>::is_empty).await;

    // The branch with our proof never was, nor was the other one's. The node is not as far yet as it was.
    let height = node.world().head().height;
    {
        let mut chain = node.world();
        let since = chain.chain.len() - 2;
        chain.reorganise(since);
        chain.mempool.clear();
    }
    two_looks(&node).await;
    assert_eq!(alerts(&world, |_| true).await, [""; 0]);
    is_mute(&node, true);
    node.world().mine_at(height + 1, Vec::new());
    two_looks(&node).await;
    assert_eq!(alerts(&world, |_| true).await, [""; 0]);
    is_mute(&node, false);
    alert(&world, "1 sector is proven here and not on chain: 1 (nothing is known of it there);").await;
    is_mute(&node, true);
    two_looks(&node).await;
    alert(&world, "1 sector is proven here and not on chain: 1 (nothing is known of it there);").await;
    is_mute(&node, false);

    node.world().mine_with(vec![proven(1)]);
    node.world().mine();
    alerts(&world, <[String]>::is_empty).await;
    node.world().mine_with(vec![Effect::Terminate(1)]);
    node.world().mine();
    alert(&world, "1 sector is proven here and not on chain: 1 (it was terminated, or has expired);").await;
    assert_eq!(state(&world, 1, "Proving").await.last_error, "", "nothing is done about it");
    world.handle.stop().await;
}
