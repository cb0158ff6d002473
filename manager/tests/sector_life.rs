//! What goes wrong with a sector on its chain while it is sealed, or long after: tickets that expire, numbers that somebody else
//! takes, blocks that never were.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use chain::sending::Sending;
use rpc::operator::Removal;
use rpc::pipelining::Batch;
use sealtasks::{Commitment, FileTypes, SealedCid, SectorId, SectorNumber, TaskType};
use standin::{Effect, PRE_COMMIT, PreCommitted, StandInNode, pre_commits};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, attempts, world_on};
use yard::{AT_ONCE, calls, chain, land, pledge, state, why, why_of, yard};

/// What the log says, line by line.
fn log(detail: &rpc::extension::SectorDetail) -> String {
    detail.log.iter().map(|(_, _, text)| format!("{text}\n")).collect()
}

/// PreCommit1 and 2 take hours, and a ticket's day begins when it is drawn, long before a worker is free.
#[tokio::test]
async fn a_sector_that_waited_too_long_for_pc1_gets_a_new_ticket_before_it_begins() {
    let node = StandInNode::start(standin::World::new()).await;
    let mut world = world_on(chain(&node, Sending::On).await, AT_ONCE).await;
    let filler = FakeWorker::new(Plan {
        name: "AP",
        seed: 4,
        tasks: &[TaskType::AddPiece],
        stores: false,
        sealyard: true,
    });
    world.join(&filler).await;
    pledge(&world, 1).await;
    let waits = state(&world, 1, "PreCommit1").await;
    assert_eq!(waits.ticket_epoch, 100);

    node.world().mine_at(3000, Vec::new());
    world.chain = chain(&node, Sending::On).await;
    let world = world.restart().await;
    world.join(&filler).await;
    filler.declare(SectorId::new(1000, 1), FileTypes::UNSEALED).await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    let sent = state(&world, 1, "PreCommitWait").await;
    assert_eq!(sent.ticket_epoch, 2100, "{}", log(&sent));
    assert!(log(&sent).contains("its ticket is too old at height 3000; it gets a new one"), "{}", log(&sent));
    assert_eq!(sent.last_error, "", "nothing was lost");
    let begun: Vec<_> = attempts(&sent, "PC1").into_iter().filter(|(_, worker)| !worker.is_empty()).collect();
    assert_eq!(begun.len(), 1, "no worker was called for the old ticket: {begun:?}");
    let params = node.world().sent(PRE_COMMIT)[0].1.clone();
    let promised = pre_commits(params).expect("a pre-commitment");
    assert_eq!(promised[0].0.ticket_epoch, 2100);
    world.handle.stop().await;
}

/// Its message would be refused as often as it is sent.
#[tokio::test]
async fn a_replica_whose_ticket_expires_before_its_message_goes_is_made_anew() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().balances.insert("f3worker".to_owned(), 0);
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    why(&world, "f0101: 0 FIL").await;
    worker.script("PC1", Behaviour::Hold);
    node.world().mine_at(100 + 3780 + 1, Vec::new());
    let again = world.sector(1, |sector| attempts(sector, "PC1").len() == 2).await;
    let words =
        "its ticket of height 100 was good for a pre-commitment up to height 3880, and the chain is at 3881";
    assert!(again.last_error.contains(words), "{again:#?}");
    let why = world.api.why(rpc::subject::Subject::Number(SectorNumber::new(1))).await.expect("told");
    assert!(why.last_error.contains(words), "{why:?}");

    node.world().balances.insert("f3worker".to_owned(), 10_u128.pow(19));
    worker.call_of("PC1").await;
    let held = worker.call_of("PC1").await;
    worker.finish(&held).await;
    let sent = state(&world, 1, "PreCommitWait").await;
    assert_eq!((sent.ticket_epoch, sent.last_error.as_str()), (2981, ""));
    land(&node);
    state(&world, 1, "Proving").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    world.handle.stop().await;
}

/// Of a sector that another manager of the same miner promised since this one was started, only the other has the replica.
#[tokio::test]
async fn a_number_that_somebody_else_takes_meanwhile_is_not_sealed() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    worker.script("AP", Behaviour::Hold);
    pledge(&world, 1).await;
    let held = worker.call_of("AP").await;
    {
        let mut chain = node.world();
        chain.mine_with(vec![promised(1), promised(2)]);
        chain.mine();
    }
    worker.finish(&held).await;
    let parked = state(&world, 1, "CommitFailed").await;
    assert!(
        parked.last_error.contains("was taken on chain by a message that this manager has not sent"),
        "{parked:#?}"
    );
    assert!(attempts(&parked, "PC1").is_empty(), "{parked:#?}");

    let next = world.api.pledge(Default::default()).await.expect("pledged");
    assert_eq!(next.number, SectorNumber::new(3), "of 2 nothing is known here, but it is taken, too");
    state(&world, 3, "PreCommitWait").await;
    world.handle.stop().await;
}

fn promised(number: u64) -> Effect {
    let sealed = SealedCid::new(Commitment::new([9; 32])).to_string();
    Effect::PreCommit(PreCommitted {
        number,
        proof: 5,
        sealed,
        ticket_epoch: 100,
        deals: Vec::new(),
        unsealed: None,
    })
}

/// A deposit, and later the pledge, are lost with the files.
#[tokio::test]
async fn a_sector_with_money_on_chain_is_removed_by_an_explicit_word_alone() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    let remove = |number: u64, removal| {
        let operator = world.operator.clone();
        async move { operator.remove_sector(SectorNumber::new(number).into(), removal, "a test".to_owned()).await }
    };
    // One of which nothing was ever sent.
    worker.script("PC1", Behaviour::Fail(0));
    pledge(&world, 1).await;
    state(&world, 1, "SealPreCommit1Failed").await;
    remove(1, Removal::UnlessOnChain).await.expect("nobody loses anything");

    // One whose deposit is paid.
    worker.script("C1", Behaviour::Fail(0));
    pledge(&world, 1).await;
    state(&world, 2, "PreCommitWait").await;
    let error = remove(2, Removal::UnlessOnChain).await.expect_err("its message is on its way").to_string();
    assert!(error.contains("MGR190") && error.contains("on its way"), "{error}");
    land(&node);
    state(&world, 2, "ComputeProofFailed").await;
    let error = remove(2, Removal::UnlessOnChain).await.expect_err("its deposit is paid").to_string();
    assert!(error.contains("MGR190") && error.contains("its deposit is lost"), "{error}");
    assert!(error.contains("--although-on-chain"), "{error}");

    // Those that wait for the chain go by that word, at whatever they wait; and nothing comes of it afterwards.
    let node_mines = |mines| node.world().mines_when_looked_at = mines;
    node_mines(false);
    pledge(&world, 1).await;
    state(&world, 3, "PreCommitWait").await;
    remove(3, Removal::AlthoughOnChain).await.expect("its message is on its way");
    node.world().challenge_delay = 500;
    pledge(&world, 1).await;
    state(&world, 4, "PreCommitWait").await;
    land(&node);
    state(&world, 4, "WaitSeed").await;
    let error = remove(4, Removal::UnlessOnChain).await.expect_err("its deposit is paid").to_string();
    assert!(error.contains("MGR190") && error.contains("its deposit is lost"), "{error}");
    remove(4, Removal::AlthoughOnChain).await.expect("its seed is waited for");
    node.world().challenge_delay = 10;
    // One whose message is about to go is not.
    let paid = node.world().balances.insert("f3worker".to_owned(), 0).expect("a balance");
    pledge(&world, 1).await;
    why_of(&world, 5, "f0101: 0 FIL").await;
    let error = remove(5, Removal::AlthoughOnChain).await.expect_err("it may go").to_string();
    assert!(error.contains("MGR204") && error.contains("at any moment"), "{error}");
    node.world().balances.insert("f3worker".to_owned(), paid);
    state(&world, 5, "Proving").await;
    for number in [3, 4] {
        assert_eq!(state(&world, number, "Removed").await.state, "Removed");
    }

    // One that lives.
    let error = remove(5, Removal::UnlessOnChain).await.expect_err("it is proven").to_string();
    assert!(error.contains("MGR190") && error.contains("proven on chain"), "{error}");
    assert_eq!(state(&world, 5, "Proving").await.last_error, "");
    remove(5, Removal::AlthoughOnChain).await.expect("as the operator wants");
    world.handle.stop().await;
}

/// What the chain has said of a sector before its message went says nothing of it afterwards, wherever the sector has come to.
#[tokio::test]
async fn a_sector_whose_message_goes_while_the_chain_is_asked_is_not_removed() {
    let node = StandInNode::start(standin::World::new()).await;
    let config = "[chain]\npre_commit_batch = 9\nprove_commit_wait = \"0s\"\n";
    let (world, worker) = yard(&node, Sending::On, config).await;
    let asked = |number: u64, removal| {
        let operator = world.operator.clone();
        tokio::spawn(async move {
            operator.remove_sector(SectorNumber::new(number).into(), removal, "a test".to_owned()).await
        })
    };
    let words = ["may be on its way", "its deposit is lost", "was sent while the chain was asked"];
    for (goal, words) in ["PreCommitWait", "WaitSeed", "ComputeProofFailed"].into_iter().zip(words) {
        let number = world.api.pledge(Default::default()).await.expect("pledged").number.get();
        why_of(&world, number, "waits for its batch").await;
        // Nothing of it is on chain when the node is asked, and the answer comes late.
        node.world().holds = Some("StateMinerAllocated");
        let removal = asked(number, Removal::UnlessOnChain);
        node.held.notified().await;
        world.handle.pipeline_api().flush(Batch::PreCommit).await.expect("flushed");
        state(&world, number, "PreCommitWait").await;
        match goal {
            // Deep enough, and its seed's height does not come.
            "WaitSeed" => node.world().mine_many(7),
            "ComputeProofFailed" => {
                worker.script("C1", Behaviour::Fail(0));
                land(&node);
            }
            _ => {}
        }
        state(&world, number, goal).await;
        node.let_go.notify_one();
        let error = removal.await.expect("asked").expect_err(goal).to_string();
        assert!(error.contains("MGR190") && error.contains(words), "{goal}: {error}");
        assert!(error.contains("--although-on-chain"), "{error}");
        asked(number, Removal::AlthoughOnChain).await.expect("asked").expect("by the explicit word");
    }
    world.handle.stop().await;
}

/// Without leave to send, nothing can go meanwhile.
#[tokio::test]
async fn a_sector_whose_message_is_only_shown_is_removed_without_a_word() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = yard(&node, Sending::Off, AT_ONCE).await;
    pledge(&world, 1).await;
    why(&world, "nothing is sent without --send-messages").await;
    let (number, by) = (SectorNumber::new(1).into(), "a test".to_owned());
    world.operator.remove_sector(number, Removal::UnlessOnChain, by).await.expect("nobody loses anything");
    assert_eq!(state(&world, 1, "Removed").await.last_error, "");
    world.handle.stop().await;
}
