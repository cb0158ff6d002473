//! A manager for the chain of a stand-in full node, with one fake worker that does everything; and what is asked of the three.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use chain::Lotus;
use chain::sending::Sending;
use manager::ChainChoice;
use manager::state::StateEvent;
use rpc::extension::SectorDetail;
use rpc::subject::Subject;
use rpc::{ApiInfo, Trust};
use sealtasks::{ActorId, SectorNumber};

use crate::standin::StandInNode;
use crate::world::fake_worker::{FakeWorker, Plan};
use crate::world::{self, ALL, World, world_on};

/// The miner that is added.
pub const SECOND: ActorId = ActorId::new(2000);

/// Each message goes at once, alone.
pub const AT_ONCE: &str = "[chain]\npre_commit_wait = \"0s\"\nprove_commit_wait = \"0s\"\n\
    pre_commit_batch = 1\nprove_commit_batch = 1\n";

pub async fn lotus(node: &StandInNode) -> Arc<Lotus> {
    let info: ApiInfo = node.api_info().parse().expect("an API info");
    Arc::new(Lotus::connect(&info, &Trust::system()).await.expect("connected"))
}

pub async fn chain(node: &StandInNode, sending: Sending) -> ChainChoice {
    ChainChoice::Lotus { lotus: lotus(node).await, sending }
}

/// A manager with one worker that does everything.
pub async fn yard(node: &StandInNode, sending: Sending, config: &str) -> (World, Arc<FakeWorker>) {
    let world = world_on(chain(node, sending).await, config).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    (world, worker)
}

/// The same for f01000 and f02000, of one chain.
pub async fn yard_of_two(node: &StandInNode, config: &str) -> (World, Arc<FakeWorker>) {
    let added = StateEvent::MinerAdded { miner: SECOND, by: "a test".to_owned() };
    let world = world_on(chain(node, Sending::On).await, config).await.restart_after(vec![added]).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    (world, worker)
}

pub async fn pledge(world: &World, count: usize) {
    for _ in 0..count {
        world.api.pledge(Default::default()).await.expect("pledged");
    }
}

pub async fn state(world: &World, number: u64, state: &str) -> SectorDetail {
    world.sector(number, |detail| detail.state == state).await
}

/// How often a method of the node was called.
pub fn calls(node: &StandInNode, method: &str) -> usize {
    node.world().calls.iter().filter(|call| call.strip_prefix("Filecoin.") == Some(method)).count()
}

/// The block with all messages that wait; from then on each look at the head makes another.
pub fn land(node: &StandInNode) {
    let mut world = node.world();
    world.mine();
    world.mines_when_looked_at = true;
}

/// What sector 1 waits for, in the manager's words, once they say this.
pub async fn why(world: &World, words: &str) -> rpc::explain::Explanation {
    why_of(world, 1, words).await
}

pub async fn why_of(world: &World, number: u64, words: &str) -> rpc::explain::Explanation {
    why_about(world, Subject::Number(SectorNumber::new(number)), words).await
}

/// The same of anything.
pub async fn why_about(world: &World, subject: Subject, words: &str) -> rpc::explain::Explanation {
    let wait = async {
        loop {
            let why = world.api.why(subject).await.expect("told");
            if why.summary.contains(words) {
                return why;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::LIMIT, wait).await.expect("never said")
}
