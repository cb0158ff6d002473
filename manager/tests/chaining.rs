//! Sectors whose chain is a full node's, here a stand-in over real HTTP: messages are sent with leave alone, once, in
//! batches, and what the chain says of them decides where the sector goes.

#[path = "../../tests/standin/mod.rs"]
mod standin;
mod world;
mod yard;

use chain::sending::Sending;
use manager::{ChainChoice, InitOptions, Repo};
use sealtasks::{ActorId, Commitment, FileTypes, SealedCid, SectorId, SectorNumber, SectorSize};
use standin::{Effect, PreCommitted, Proven, StandInNode};
use world::fake_worker::Behaviour;
use world::lost::{lose, lost, old_path, rebuild, update};
use world::{World, start};
use yard::{AT_ONCE, calls, chain, land, pledge, state, why, why_of, yard};

/// What fake workers make of every sector.
fn sealed() -> String {
    SealedCid::new(Commitment::new([2; 32])).to_string()
}

fn pre_committed(number: u64) -> Effect {
    let (sealed, ticket_epoch) = (sealed(), 100);
    Effect::PreCommit(PreCommitted {
        number,
        proof: 5,
        sealed,
        ticket_epoch,
        deals: Vec::new(),
        unsealed: None,
    })
}

fn proven(number: u64) -> Effect {
    Effect::Prove(Proven { number, proof: 5, sealed: sealed(), key: None })
}

#[tokio::test]
async fn a_sector_goes_from_pledge_to_proving_with_two_messages() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    let waits = state(&world, 1, "PreCommitWait").await;
    assert_eq!((waits.ticket_epoch, waits.chain.as_str()), (100, "lotus"), "the head's height less 900");
    land(&node);
    state(&world, 1, "CommitWait").await;
    let done = state(&world, 1, "Proving").await;
    assert_eq!(done.last_error, "");
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    let log: String = done.log.iter().map(|(_, _, text)| format!("{text}\n")).collect();
    let mut rest = log.as_str();
    for text in [
        "message bafy2bzacestandinmessage41 sent, now PreCommitWait",
        "on chain at 1002, now WaitSeed",
        "message bafy2bzacestandinmessage42 sent, now CommitWait",
        "now FinalizeSector",
        "now Proving",
    ] {
        let found = rest.split_once(text);
        rest = found.unwrap_or_else(|| panic!("{text} is missing or out of order:\n{log}")).1;
    }
    world.handle.stop().await;
}

#[tokio::test]
async fn without_leave_the_message_is_shown_and_goes_when_leave_is_given() {
    let node = StandInNode::start(standin::World::new()).await;
    let (mut world, worker) = yard(&node, Sending::Off, "").await;
    pledge(&world, 1).await;
    let why = why(&world, "PreCommitSectorBatch2 to f01000 for sectors 1").await;
    assert!(why.change.contains("--send-messages"), "{why:?}");
    let shown = serde_json::to_value(why.message.expect("it is shown")).expect("JSON");
    assert_eq!(state(&world, 1, "PreCommitting").await.last_error, "");
    assert_eq!(calls(&node, "MpoolPushMessage"), 0);

    std::fs::write(world.dir.path().join("repo/config.toml"), AT_ONCE).expect("config.toml");
    world.chain = chain(&node, Sending::On).await;
    let world = world.restart().await;
    world.join(&worker).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 1);
    // What went is what was shown, byte for byte.
    let sent = node.world().pushed.remove(0);
    for key in ["To", "From", "Value", "Method", "Params"] {
        assert_eq!((&shown[key], sent.message[key].is_null()), (&sent.message[key], false), "{key}");
    }
    assert_eq!(
        (&shown["MaxFee"], &shown["MethodName"]),
        (&sent.spec["MaxFee"], &"PreCommitSectorBatch2".into())
    );
    let why = yard::why(&world, "is on its way").await;
    assert_eq!(why.message, None);
    world.handle.stop().await;
}

#[tokio::test]
async fn an_exit_code_parks_the_sector_with_its_meaning_until_the_operator_tries_again() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().exit_codes.insert(28, 16);
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    let parked = state(&world, 1, "PreCommitFailed").await;
    let words = "message bafy2bzacestandinmessage41 failed on chain at height 1002: exit code 16 (ErrIllegalArgument)";
    assert!(parked.last_error.contains(words), "{}", parked.last_error);
    let why = why(&world, "not tried again by itself").await;
    assert!(why.change.contains("sectors retry 1"), "{why:?}");

    // The proof's message does the same to the proof's state.
    {
        let mut chain = node.world();
        chain.exit_codes = [(34, 19)].into();
        chain.mines_when_looked_at = false;
    }
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried again");
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "CommitWait").await;
    let parked = state(&world, 1, "CommitFailed").await;
    assert!(parked.last_error.contains("exit code 19 (ErrInsufficientFunds)"), "{}", parked.last_error);
    assert_eq!(calls(&node, "MpoolPushMessage"), 3);
    world.handle.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_dear_goes_in_halves_and_what_fails_alone_is_parked() {
    let node = StandInNode::start(standin::World::new()).await;
    // Room for the parameters of one sector, not of two.
    node.world().gas_for = 120;
    let config = "[chain]\npre_commit_batch = 3\n";
    let (world, _worker) = yard(&node, Sending::On, config).await;
    pledge(&world, 3).await;
    for number in 1..=3 {
        state(&world, number, "PreCommitWait").await;
    }
    assert_eq!(calls(&node, "MpoolPushMessage"), 3, "a message for each");
    assert!(calls(&node, "GasEstimateMessageGas") >= 5, "three, two and one, one and one");

    node.world().estimate_fails = Some((1, "message execution failed: exit 16".to_owned()));
    pledge(&world, 3).await;
    for number in 4..=6 {
        let parked = state(&world, number, "PreCommitFailed").await;
        assert!(parked.last_error.contains("the message would fail"), "{}", parked.last_error);
    }
    assert_eq!(calls(&node, "MpoolPushMessage"), 3);
    world.handle.stop().await;
}

#[tokio::test]
async fn a_balance_that_suffices_for_a_part_of_a_batch_is_spent_on_that_part() {
    const FIL: u128 = 10_u128.pow(18);
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.deposit = FIL;
        chain.balances.insert("f3worker".to_owned(), 2 * FIL + FIL / 10);
    }
    let (world, _worker) = yard(&node, Sending::On, "[chain]\npre_commit_batch = 3\n").await;
    pledge(&world, 3).await;
    let waiting = async {
        loop {
            let mut waiting = Vec::new();
            for number in 1..=3 {
                let detail = world.sector(number, |_| true).await;
                if detail.state != "PreCommitWait" {
                    waiting.push(number);
                }
            }
            if let [number] = waiting[..] {
                return number;
            }
            tokio::task::yield_now().await;
        }
    };
    let number = tokio::time::timeout(world::LIMIT, waiting).await.expect("two go");
    why_of(&world, number, "f0101: 2.1 FIL, 2.00000000505 FIL of it for messages that wait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);

    node.world().balances.insert("f3worker".to_owned(), 4 * FIL);
    state(&world, number, "PreCommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 3);
    world.handle.stop().await;
}

/// Otherwise a sector whose deposit is paid could miss its time to be proven, and lose it.
#[tokio::test]
async fn a_sector_is_proven_although_the_balance_does_not_suffice_for_another_one_s_deposit() {
    const FIL: u128 = 10_u128.pow(18);
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.deposit = FIL;
        chain.balances.insert("f3worker".to_owned(), FIL + FIL / 10);
    }
    let (world, _worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    node.world().balances.insert("f3worker".to_owned(), FIL / 2);
    pledge(&world, 1).await;
    why_of(&world, 2, "f0101: 0.5 FIL").await;
    land(&node);
    state(&world, 1, "CommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2);
    why_of(&world, 2, "f0101: 0.5 FIL").await;
    world.handle.stop().await;
}

#[tokio::test]
async fn a_message_whose_sending_nobody_heard_of_is_found_and_not_sent_again() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().swallow_pushes = true;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    node.swallowed.notified().await;
    let world = world.restart().await;
    node.world().swallow_pushes = false;
    world.join(&worker).await;
    state(&world, 1, "PreCommitWait").await;
    assert_eq!((calls(&node, "MpoolPushMessage"), node.world().mempool.len()), (1, 1));

    // Once more, with the message on chain when it is looked for.
    let world = world.restart().await;
    world.join(&worker).await;
    worker.declare(SectorId::new(1000, 1), FileTypes::SEALED | FileTypes::CACHE).await;
    land(&node);
    state(&world, 1, "CommitWait").await;
    assert_eq!(calls(&node, "MpoolPushMessage"), 2, "the proof's is the second");
    world.handle.stop().await;
}

/// A message that was perhaps sent is not made stale by a state by hand while this manager, which sends none, cannot know.
#[tokio::test]
async fn without_leave_a_sector_whose_message_may_have_gone_is_put_into_no_other_state() {
    let node = StandInNode::start(standin::World::new()).await;
    node.world().swallow_pushes = true;
    let (mut world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    pledge(&world, 1).await;
    node.swallowed.notified().await;
    // It is not seen anywhere now; it may be in a minute.
    node.world().mempool.clear();
    world.chain = chain(&node, Sending::Off).await;
    let world = world.restart().await;
    world.join(&worker).await;
    state(&world, 1, "PreCommitting").await;
    let api = world.handle.pipeline_api();
    let error = api.update_state(SectorNumber::new(1).into(), "PreCommit2".to_owned()).await;
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("MGR122") && error.contains("may have been sent"), "{error}");
    assert_eq!(state(&world, 1, "PreCommitting").await.last_error, "");
    world.handle.stop().await;
}

#[tokio::test]
async fn a_repo_is_for_one_chain_and_the_chain_must_know_its_miner() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, _worker) = yard(&node, Sending::Off, "").await;
    let World { dir, handle, dialer, api, operator, .. } = world;
    handle.stop().await;
    drop((handle, api, operator));
    let repo = dir.path().join("repo");
    let refusal = |chain: ChainChoice| {
        let (repo, dialer) = (repo.clone(), dialer.clone());
        async move { start(&repo, &dialer, chain).await.err().expect("refused").to_string() }
    };
    let none = refusal(ChainChoice::Offline).await;
    assert!(none.contains("MGR063") && none.contains("standin"), "{none}");

    // A network of the same name with another genesis.
    let mut other = standin::World::new();
    other.chain[0].branch = 7;
    let other = StandInNode::start(other).await;
    let text = refusal(chain(&other, Sending::Off).await).await;
    assert!(text.contains("MGR064") && text.contains("bafy2bzacestandintipset0x7"), "{text}");

    let says = |size, proof| {
        let mut chain = node.world();
        (chain.sector_size, chain.window_post_proof) = (size, proof);
    };
    says(8 << 20, 11);
    let text = refusal(chain(&node, Sending::Off).await).await;
    assert!(text.contains("MGR065") && text.contains("8MiB on chain"), "{text}");
    says(2 << 10, 10);
    start(&repo, &dialer, chain(&node, Sending::Off).await).await.expect("its own chain").stop().await;

    let offline = dir.path().join("offline");
    Repo::init(&offline, InitOptions::new(ActorId::new(1000), SectorSize::KiB2)).expect("a repo");
    let text = start(&offline, &dialer, chain(&node, Sending::On).await).await.err().expect("refused");
    assert!(text.to_string().contains("no chain (offline)"), "{text}");
}

/// PreCommit1 deletes every earlier replica, so no number is taken that is in use anywhere, and nothing is sealed that is
/// proven.
#[tokio::test]
async fn numbers_in_use_are_not_taken_and_what_is_proven_is_not_sealed_anew() {
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.mine_with(vec![pre_committed(4)]);
        chain.mine();
        chain.mine_with(vec![proven(4)]);
        chain.mine();
    }
    let (world, worker) = yard(&node, Sending::Off, AT_ONCE).await;
    worker.declare(SectorId::new(1000, 5), FileTypes::SEALED | FileTypes::CACHE).await;
    let id = world.api.pledge(Default::default()).await.expect("pledged");
    assert_eq!(id.number, SectorNumber::new(6), "4 is on chain, of 5 there are files");
    state(&world, 6, "PreCommitting").await;

    // Another manager has proven it since.
    {
        let mut chain = node.world();
        chain.mine_with(vec![pre_committed(6)]);
        chain.mine();
        chain.mine_with(vec![proven(6)]);
        chain.mine();
    }
    let number = SectorNumber::new(6);
    let to = "PreCommit1".to_owned();
    world.handle.pipeline_api().update_state(number.into(), to).await.expect("put there");
    let parked = state(&world, 6, "SealPreCommit1Failed").await;
    assert!(parked.last_error.contains("proven on chain already"), "{}", parked.last_error);
    let first = parked.log.iter().filter(|(_, _, text)| text.contains("result of PC1")).count();
    assert_eq!(first, 1, "{:#?}", parked.log);
    world.handle.stop().await;
}

#[tokio::test]
async fn sectors_on_chain_that_no_path_has_are_named() {
    let node = StandInNode::start(standin::World::new()).await;
    {
        let mut chain = node.world();
        chain.mine_with([4, 5, 6, 9].map(pre_committed).to_vec());
        chain.mine();
        chain.mine_with([4, 5, 6].map(proven).to_vec());
        // What is over stays among the miner's sectors for a while; what is faulty has to be proven still.
        chain.mine_with(vec![Effect::Fault(5), Effect::Terminate(6)]);
        chain.mine();
    }
    let (world, worker) = yard(&node, Sending::Off, AT_ONCE).await;
    let numbers = |all: &[u64]| all.iter().map(|number| SectorId::new(1000, *number)).collect::<Vec<_>>();
    let api = world.handle.proving_api();
    assert_eq!(api.unheld().await.expect("told"), numbers(&[4, 5]), "9 is not proven");
    worker.declare(SectorId::new(1000, 4), FileTypes::SEALED | FileTypes::CACHE).await;
    worker.declare(SectorId::new(1000, 5), FileTypes::SEALED).await;
    assert_eq!(api.unheld().await.expect("told"), numbers(&[5]), "its cache is nowhere");
    worker.declare(SectorId::new(1000, 5), FileTypes::CACHE).await;
    assert_eq!(api.unheld().await.expect("told"), numbers(&[]));
    world.handle.stop().await;
}

/// What a rebuild has made that was given up may be no replica; the original that is back beside it is one.
#[tokio::test]
async fn a_sector_whose_original_is_back_is_held_although_a_rebuild_was_given_up() {
    let node = StandInNode::start(standin::World::new()).await;
    let (world, worker) = yard(&node, Sending::On, AT_ONCE).await;
    let away = old_path(&world).await;
    pledge(&world, 1).await;
    state(&world, 1, "PreCommitWait").await;
    land(&node);
    state(&world, 1, "CommitWait").await;
    state(&world, 1, "Proving").await;
    let api = world.handle.proving_api();
    let unheld = || async { api.unheld().await.expect("told") };
    assert_eq!(unheld().await, []);
    lose(&world, 1).await;
    while !worker.is_idle().await {}
    worker.script("PC2", Behaviour::Hold);
    rebuild(&world, 1, None).await.expect("it begins");
    worker.fail(&worker.call_of("PC2").await, 0).await;
    state(&world, 1, "SealPreCommit2Failed").await;
    update(&world, 1, "Proving").await.expect("given up");
    assert_eq!(unheld().await, [SectorId::new(1000, 1)], "half a replica is none");
    away.declare(SectorId::new(1000, 1), FileTypes::SEALED | FileTypes::CACHE).await;
    assert_eq!(unheld().await, []);
    world.handle.stop().await;
}

/// What its ticket makes must be what the chain proves; of other sectors of the same call nothing is refused.
#[tokio::test]
async fn what_is_not_on_chain_as_it_was_sealed_is_not_sealed_again() {
    let node = StandInNode::start(standin::World::new()).await;
    let other = SealedCid::new(Commitment::new([9; 32])).to_string();
    {
        let mut chain = node.world();
        chain.mine_with([4, 5, 6, 7, 8].map(pre_committed).to_vec());
        let snapped = Proven { number: 4, proof: 5, sealed: other.clone(), key: Some(sealed()) };
        let replaced = Proven { number: 5, proof: 5, sealed: other.clone(), key: None };
        chain.mine_with(vec![Effect::Prove(snapped), Effect::Prove(replaced), proven(6), proven(7)]);
        chain.mine_with(vec![Effect::Terminate(6)]);
        chain.mine();
    }
    let (world, _worker) = yard(&node, Sending::Off, AT_ONCE).await;
    let why =
        async |number| rebuild(&world, number, Some(lost(number, 2))).await.expect_err("refused").to_string();
    for (number, code, words) in
        [(4, "CHN11", "snapped"), (5, "CHN12", &other[..]), (6, "CHN13", "terminated"), (9, "CHN13", "never")]
    {
        let error = why(number).await;
        assert!(error.contains(&format!("MGR196: sector {number} is not sealed again: {code}")), "{error}");
        assert!(error.contains(words), "{error}");
    }
    // Nobody guesses for a node that does not say.
    node.world().remembers_from = i64::MAX;
    let error = why(7).await;
    assert!(
        error.contains("CHN02") && error.contains("state tree") && error.contains("try again"),
        "{error}"
    );
    node.world().remembers_from = 0;
    let known = world.api.sectors_list().await.expect("told");
    assert_eq!(known, [], "nothing was begun");

    // What is proven or promised there as it was sealed comes back.
    for number in [7, 8] {
        rebuild(&world, number, Some(lost(number, 2))).await.expect("it begins");
        state(&world, number, "Proving").await;
    }
    // Our own record's sector, snapped by somebody else meanwhile.
    lose(&world, 7).await;
    let snapped = Proven { number: 7, proof: 5, sealed: other, key: Some(sealed()) };
    node.world().mine_with(vec![Effect::Prove(snapped)]);
    node.world().mine();
    let error = rebuild(&world, 7, None).await.expect_err("refused").to_string();
    assert!(error.contains("CHN11"), "{error}");
    assert_eq!(state(&world, 7, "Proving").await.last_error, "");
    world.handle.stop().await;
}
