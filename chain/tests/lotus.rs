//! A full node's chain, over real HTTP and websocket, against the stand-in.

#[path = "../../tests/standin/mod.rs"]
mod standin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chain::{Chain, ChainError, Lotus, SectorStanding, entropy};
use rpc::{ApiInfo, Trust};
use sealtasks::{ActorId, ChainEpoch, RegisteredSealProof, SealedCid, SectorId, SectorRef, SectorSize};
use standin::{Effect, PreCommitted, Proven, StandInNode, World, randomness_text};

const SEALED: &str = "bagboea4b5abcatlxechwbp7kjpjguna6r6q7ejrhe6mdp3lf34pmswn27pkkiekz";
const MINER: ActorId = ActorId::new(1000);
const SEAL_RANDOMNESS: u64 = 5;
const INTERACTIVE: u64 = 6;

async fn connect(info: &str) -> Result<Lotus, ChainError> {
    let info: ApiInfo = info.parse().expect("an API info");
    Lotus::connect(&info, &Trust::system()).await
}

fn sector(number: u64) -> SectorRef {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::ALL[0]);
    SectorRef { id: SectorId::new(1000, number), proof }
}

fn promised(number: u64, ticket_epoch: i64) -> Effect {
    let sealed = SEALED.to_owned();
    Effect::PreCommit(PreCommitted {
        number,
        proof: 5,
        sealed,
        ticket_epoch,
        deals: Vec::new(),
        unsealed: None,
    })
}

fn sealed() -> SealedCid {
    SEALED.parse().expect("a CID")
}

fn drawn(tag: u64, height: i64, branch: u64) -> Vec<u8> {
    let text = randomness_text(tag, height, &STANDARD.encode(entropy(MINER)), branch);
    STANDARD.decode(text).expect("base64")
}

#[tokio::test]
async fn a_node_tells_miner_ticket_and_sector_over_both_transports() {
    let node = StandInNode::start(World::new()).await;
    for info in [node.api_info(), node.api_info_ws()] {
        let lotus = connect(&info).await.expect("connected");
        assert_eq!((lotus.name(), lotus.network()), ("lotus", "standin"));
        assert_eq!(lotus.clock().expect("a clock").period_ms, 1000);
        let facts = lotus.miner(MINER, None).await.expect("a miner");
        assert_eq!((facts.size.bytes(), facts.proof.number()), (2048, 5));
        let (ticket, epoch) = lotus.ticket(sector(1)).await.expect("a ticket");
        assert_eq!(epoch, ChainEpoch::new(100), "900 heights below the head");
        assert_eq!(ticket.0.to_vec(), drawn(SEAL_RANDOMNESS, 100, 0));
        assert_eq!(lotus.standing(SectorId::new(1000, 1)).await.expect("an answer"), SectorStanding::Unknown);
    }
}

/// A sector that was pre-committed is sealed again with the ticket that the chain has.
#[tokio::test]
async fn a_pre_committed_sector_keeps_its_ticket() {
    let mut world = World::new();
    world.mine_with(vec![promised(7, 55)]);
    world.mine();
    let node = StandInNode::start(world).await;
    let lotus = connect(&node.api_info()).await.expect("connected");
    let (ticket, epoch) = lotus.ticket(sector(7)).await.expect("a ticket");
    assert_eq!((epoch, ticket.0.to_vec()), (ChainEpoch::new(55), drawn(SEAL_RANDOMNESS, 55, 0)));
    let standing = lotus.standing(SectorId::new(1000, 7)).await.expect("an answer");
    let SectorStanding::PreCommitted { epoch, ticket_epoch, .. } = standing else { panic!("{standing:?}") };
    assert_eq!((epoch, ticket_epoch), (ChainEpoch::new(1001), ChainEpoch::new(55)));
    let proven = Proven { number: 7, proof: 5, sealed: SEALED.to_owned(), key: None };
    node.world().mine_with(vec![Effect::Prove(proven)]);
    node.world().mine();
    let standing = lotus.standing(SectorId::new(1000, 7)).await.expect("an answer");
    assert!(matches!(standing, SectorStanding::Proven { snapped: false, .. }), "{standing:?}");
    // Sealed anew its good replica would go.
    let error = lotus.ticket(sector(7)).await.expect_err("a living sector");
    assert_eq!((error.code(), error.is_permanent()), ("CHN09", true), "{error}");
    assert_eq!(lotus.may_seal(sector(7).id).await.expect_err("a living sector").code(), "CHN09");
    lotus.may_seal(sector(8).id).await.expect("no such sector");
    assert_eq!(lotus.first_free(MINER).await.expect("told"), 8);
}

#[tokio::test]
async fn what_contradicts_the_chain_is_refused() {
    let node = StandInNode::start(World::new()).await;
    let lotus = connect(&node.api_info()).await.expect("connected");
    let told = SectorSize::from_bytes(34_359_738_368);
    let error = lotus.miner(MINER, told).await.expect_err("another size");
    assert_eq!((error.code(), error.is_permanent()), ("CHN06", true));
    assert_eq!(
        error.to_string(),
        "t01000 has 2KiB sectors on chain, not 32GiB; leave --sector-size out or give 2KiB"
    );
    assert!(lotus.miner(MINER, SectorSize::from_bytes(2048)).await.is_ok());
    let error = lotus.miner(ActorId::new(1), None).await.expect_err("no such miner");
    assert_eq!(error.code(), "CHN02");
    node.world().network_version = 6;
    assert_eq!(lotus.miner(MINER, None).await.expect("a miner").proof.number(), 0, "V1 before version 7");
    node.world().window_post_proof = 13;
    assert_eq!(lotus.miner(MINER, None).await.expect_err("sizes differ").code(), "CHN05");

    node.world().api_version = 0x1_0500;
    let error = connect(&node.api_info()).await.err().expect("an old node");
    assert_eq!(error.code(), "CHN04");
    assert!(error.to_string().contains("speaks API version 1.5.0; needed is 2.1 or a later 2.x"), "{error}");
    let stranger = node.api_info().replace("stand.in", "stranger");
    let error = connect(&stranger).await.err().expect("a wrong token");
    assert!(error.is_permanent(), "{error}");
    let stranger = node.api_info_ws().replace("stand.in", "stranger");
    assert!(connect(&stranger).await.err().expect("a wrong token").is_permanent());
}

#[tokio::test]
async fn synchronisation_is_waited_for_and_reported() {
    let mut world = World::new();
    world.behind = 40;
    world.mines_when_looked_at = true;
    let node = StandInNode::start(world).await;
    let lotus = connect(&node.api_info()).await.expect("connected");
    let mut reports = Vec::new();
    lotus.synced(|progress| reports.push(progress.clone())).await.expect("synced");
    assert!(reports.len() > 10, "{} reports", reports.len());
    assert!(reports.first().is_some_and(|first| first.behind_s > 30 && first.syncing.is_some()));
    assert!(reports.last().is_some_and(|last| last.behind_s <= 3));
}

#[tokio::test]
async fn a_seed_waits_for_its_height_and_needs_the_right_pre_commitment() {
    let node = StandInNode::start(World { mines_when_looked_at: true, ..World::new() }).await;
    let lotus = connect(&node.api_info_ws()).await.expect("connected");
    let error = lotus.seed(sector(1), sealed()).await.expect_err("not pre-committed");
    assert_eq!((error.code(), error.is_permanent()), ("CHN07", false));
    assert!(node.world().head().height >= 1020, "it may come back, after a reorganisation");

    let node = StandInNode::start(World::new()).await;
    let lotus = connect(&node.api_info_ws()).await.expect("connected");
    {
        let mut world = node.world();
        world.mine_with(vec![promised(1, 55)]);
        world.mine();
        world.mines_when_looked_at = true;
    }
    // Every look at the head makes a block; at the 16th above the pre-commitment the seed lies deep enough.
    let (seed, epoch) = lotus.seed(sector(1), sealed()).await.expect("a seed");
    assert_eq!((epoch, seed.0.to_vec()), (ChainEpoch::new(1011), drawn(INTERACTIVE, 1011, 0)));
    assert_eq!(node.world().head().height, 1017);
    let other = SealedCid::new(sealtasks::Commitment::new([1; 32]));
    let error = lotus.seed(sector(1), other).await.expect_err("another replica");
    assert_eq!((error.code(), error.is_permanent()), ("CHN08", true));
}

/// The pre-commitment lands at 1001, is reorganised away and lands again at 1003: the seed is the one of the later height
/// on the later branch.
#[tokio::test]
async fn a_reorganisation_moves_the_seed() {
    let mut world = World::new();
    world.mine_with(vec![promised(1, 55)]);
    world.mine_many(14);
    let node = StandInNode::start(world).await;
    let lotus = connect(&node.api_info()).await.expect("connected");
    let waiting = tokio::spawn(async move { lotus.seed(sector(1), sealed()).await });
    // It has looked at the head at least once, and height 1015 is one too low.
    let looked = || node.world().calls.iter().filter(|call| call.ends_with("ChainHead")).count();
    while looked() < 2 {
        tokio::task::yield_now().await;
    }
    {
        let mut world = node.world();
        assert_eq!(world.head().height, 1015);
        let effects = world.reorganise(15);
        world.mine_many(2);
        world.mine_with(effects);
        world.mine();
        world.mines_when_looked_at = true;
    }
    let (seed, epoch) = waiting.await.expect("no panic").expect("a seed");
    assert_eq!((epoch, seed.0.to_vec()), (ChainEpoch::new(1013), drawn(INTERACTIVE, 1013, 1)));
}
