//! A proof is believed when a process of its own has verified it, and not before: nothing of one that is refused, or that
//! nobody could verify, reaches the chain.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chain::sending::Sending;
use manager::Verifier;
use rpc::extension::SectorDetail;
use sealtasks::{SectorNumber, SectorRef, VerifyInput};
use standin::{PROVE_COMMIT, StandInNode};
use world::fake_worker::{FakeWorker, Plan};
use world::{ALL, World, attempts, world_judged};
use yard::{AT_ONCE, chain, land, pledge, state};

/// Says these in turn, and then yes.
struct Judge(Mutex<VecDeque<Result<bool, String>>>);

#[async_trait]
impl Verifier for Judge {
    async fn verify(&self, _sector: SectorRef, _input: VerifyInput) -> Result<bool, String> {
        self.0.lock().expect("no panic elsewhere").pop_front().unwrap_or(Ok(true))
    }
}

/// A sector that is pre-committed on the chain of a node, and proven before this judge.
async fn before(node: &StandInNode, words: Vec<Result<bool, String>>) -> (World, Arc<FakeWorker>) {
    let judge = Arc::new(Judge(Mutex::new(words.into())));
    let world = world_judged(chain(node, Sending::On).await, AT_ONCE, judge).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    land(node);
    (world, worker)
}

/// How often PC1, C1 and C2 were done, and how many proofs were sent.
fn done(node: &StandInNode, sector: &SectorDetail) -> (usize, usize, usize, usize) {
    let often = |task| attempts(sector, task).len();
    (often("PC1"), often("C1"), often("C2"), node.world().sent(PROVE_COMMIT).len())
}

async fn retry(world: &World) {
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
}

#[tokio::test]
async fn a_proof_that_nobody_could_verify_is_verified_again_and_not_made_again() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = before(&node, vec![Err("no memory for the verifier".to_owned())]).await;
    let waits = state(&world, 1, "ComputeProofFailed").await;
    assert!(waits.last_error.contains("the proof was not verified: no memory"), "{waits:#?}");
    assert_eq!(done(&node, &waits), (1, 1, 1, 0));
    retry(&world).await;
    let proven = state(&world, 1, "Proving").await;
    assert_eq!(done(&node, &proven), (1, 1, 1, 1));
    world.handle.stop().await;
}

/// However often a proof is invalid, that says nothing of the replica: Commit1 and Commit2 are done again, and it stays.
#[tokio::test]
async fn an_invalid_proof_is_made_again_and_the_replica_stays() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = before(&node, vec![Ok(false), Ok(false)]).await;
    let refused = state(&world, 1, "ComputeProofFailed").await;
    assert!(refused.last_error.contains("the proof is invalid"), "{refused:#?}");
    assert_eq!(done(&node, &refused), (1, 1, 1, 0));
    retry(&world).await;
    let twice =
        |sector: &SectorDetail| sector.state == "ComputeProofFailed" && attempts(sector, "C2").len() == 2;
    let refused = world.sector(1, twice).await;
    assert_eq!(done(&node, &refused), (1, 2, 2, 0));
    retry(&world).await;
    let proven = state(&world, 1, "Proving").await;
    assert_eq!(done(&node, &proven), (1, 3, 3, 1));
    assert_eq!(proven.ticket_epoch, refused.ticket_epoch);
    world.handle.stop().await;
}
