//! Messages are sent once: not without leave, not twice after a crash, and through reorganisations.

mod late;
#[path = "../../tests/standin/mod.rs"]
mod standin;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chain::params::{Activation, PreCommit, ProveCommit, SectorProofs, pre_commit};
use chain::sending::{
    Courier, Draft, ExitCode, Fees, FileOutbox, Nowhere, Outbox, Outcome, Payment, Record, Sending, Sight,
    Stage, Submitted, draft_pre_commit, draft_prove_commit,
};
use chain::{Lotus, TokenAmount};
use rpc::{ApiInfo, Trust};
use sealtasks::{
    ActorId, ChainEpoch, Commitment, Proof, RegisteredSealProof, SealedCid, SectorId, SectorNumber,
    SectorRef, UnsealedCid,
};
use standin::{Effect, PreCommitted, StandInNode, World};

const MINER: ActorId = ActorId::new(1000);

async fn connect(info: &str) -> Lotus {
    let info: ApiInfo = info.parse().expect("an API info");
    Lotus::connect(&info, &Trust::system()).await.expect("connected")
}

fn sectors(numbers: &[u64]) -> Vec<PreCommit> {
    let sector = |number: &u64| PreCommit {
        sector: SectorRef {
            id: SectorId::new(1000, *number),
            proof: RegisteredSealProof::try_from(5).expect("a proof"),
        },
        sealed: SealedCid::new(Commitment::new([1; 32])),
        ticket_epoch: ChainEpoch::new(90),
        expiration: ChainEpoch::new(1_600_000),
        unsealed: None,
    };
    numbers.iter().map(sector).collect()
}

fn params(numbers: &[u64]) -> String {
    STANDARD.encode(pre_commit(&sectors(numbers)).expect("parameters"))
}

async fn drafted(lotus: &Lotus, numbers: &[u64]) -> Draft {
    draft_pre_commit(lotus, MINER, &sectors(numbers), &Fees::PRE_COMMIT.into()).await.expect("a draft")
}

fn outbox(directory: &Path) -> FileOutbox {
    FileOutbox::open(&directory.join("messages")).expect("an outbox")
}

/// A node, and an outbox for what goes to it.
struct Desk {
    node: StandInNode,
    lotus: Lotus,
    outbox: FileOutbox,
    _directory: tempfile::TempDir,
}

impl Desk {
    async fn new(world: World) -> Self {
        let node = StandInNode::start(world).await;
        let lotus = connect(&node.api_info()).await;
        let directory = tempfile::tempdir().expect("a directory");
        Self { node, lotus, outbox: outbox(directory.path()), _directory: directory }
    }
}

/// Sends this and gives its record.
async fn sent(courier: &Courier<'_, FileOutbox>, draft: Draft) -> Record {
    match courier.submit(draft).await.expect("sent") {
        Submitted::Sent(record) => *record,
        shown => panic!("{shown:?}"),
    }
}

/// All records that have not landed, after those that were only intended have been looked for.
async fn looked_for(courier: &Courier<'_, FileOutbox>, outbox: &FileOutbox, nowhere: Nowhere) -> Vec<Record> {
    let head = ChainEpoch::new(1000);
    let mut open = Vec::new();
    for record in outbox.all().expect("readable") {
        match record.stage {
            Stage::Landed { .. } => {}
            Stage::Pushed { .. } => open.push(record),
            Stage::Intended { .. } => {
                let found = courier.look_for(record, nowhere, Sight::Everywhere, head).await;
                open.extend(found.expect("looked for"));
            }
        }
    }
    open
}

#[tokio::test]
async fn nothing_is_sent_without_leave_and_what_would_be_is_shown() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    let courier = Courier::new(&lotus, &outbox, Sending::default());
    let submitted = courier.submit(drafted(&lotus, &[1, 2]).await).await.expect("shown");
    let Submitted::Shown(draft) = submitted else { panic!("{submitted:?}") };
    assert_eq!(
        draft.to_string(),
        format!(
            "PreCommitSectorBatch2 to f01000 for sectors 1 2 ({} bytes of parameters), from f3worker, value \
             0.000000000000002 FIL, gas 25000000 at up to 0.000000000000000101 FIL each, fee at most 0.04 FIL",
            STANDARD.decode(params(&[1, 2])).expect("base64").len()
        )
    );
    assert_eq!(looked_for(&courier, &outbox, Nowhere::Send).await, []);
    assert!(outbox.all().expect("readable").is_empty());
    let calls = node.world().calls.clone();
    assert!(!calls.iter().any(|call| call == "Filecoin.MpoolPushMessage"), "{calls:?}");
}

#[tokio::test]
async fn a_message_lands_once_through_a_reorganisation() {
    let node = StandInNode::start(World::new()).await;
    let lotus = connect(&node.api_info_ws()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let outbox = outbox(directory.path());
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let record = sent(&courier, drafted(&lotus, &[1]).await).await;
    assert!(matches!(&record.stage, Stage::Pushed { nonce: 41, .. }), "{record:?}");
    {
        let mut world = node.world();
        world.mine_many(4);
        world.reorganise(4);
        world.mines_when_looked_at = true;
    }
    let outcome = courier.settle(&record).await.expect("landed");
    assert!(matches!(&outcome, Outcome::Done { failed, .. } if failed.is_empty()), "{outcome:?}");
    assert_eq!(node.world().landed(&params(&[1])), 1);
    assert_eq!(looked_for(&courier, &outbox, Nowhere::Send).await, []);
    assert!(matches!(outbox.all().expect("readable")[0].stage, Stage::Landed { .. }));
}

/// Not a test by itself: what [`killed_between_push_and_record`] starts in a process of its own, and kills.
#[tokio::test]
async fn child_that_sends_until_it_is_killed() {
    let (Ok(info), Ok(directory)) = (std::env::var("STANDIN_API_INFO"), std::env::var("STANDIN_OUTBOX"))
    else {
        return;
    };
    let lotus = connect(&info).await;
    let outbox = outbox(Path::new(&directory));
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let submitted = courier.submit(drafted(&lotus, &[1, 2, 3]).await).await;
    panic!("the node never answers: {submitted:?}");
}

/// SIGKILL while the node has the message and we do not know it: looked for among those that wait, then on chain, and in
/// both cases nothing is sent a second time. The node does not know ids of messages, so that nothing but the search helps.
async fn killed_between_push_and_record(mined: usize) {
    let mut world = World::new();
    world.swallow_pushes = true;
    let node = StandInNode::start(world).await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_sends_until_it_is_killed", "--nocapture"])
        .env("STANDIN_API_INFO", node.api_info())
        .env("STANDIN_OUTBOX", directory.path())
        .spawn()
        .expect("a child");
    let came = tokio::time::timeout(std::time::Duration::from_secs(60), node.swallowed.notified()).await;
    child.kill().expect("killed");
    child.wait().expect("gone");
    came.expect("the message came in");
    {
        let mut world = node.world();
        world.swallow_pushes = false;
        world.mine_many(mined);
    }
    let outbox = outbox(directory.path());
    let intended = outbox.all().expect("readable");
    assert_eq!((intended.len(), &intended[0].stage), (1, &Stage::Intended { again: None }));
    let lotus = connect(&node.api_info()).await;
    // Without leave to send it is only looked for; what was sent before is known either way.
    for sending in [Sending::Off, Sending::On, Sending::On] {
        let courier = Courier::new(&lotus, &outbox, sending);
        let open = looked_for(&courier, &outbox, Nowhere::Send).await;
        assert!(matches!(open[0].stage, Stage::Pushed { nonce: 41, .. }), "{open:?}");
    }
    node.world().mines_when_looked_at = true;
    let record = outbox.all().expect("readable").remove(0);
    let outcome = Courier::new(&lotus, &outbox, Sending::On).settle(&record).await.expect("landed");
    assert!(matches!(&outcome, Outcome::Done { failed, .. } if failed.is_empty()), "{outcome:?}");
    let world = node.world();
    assert_eq!(world.landed(&params(&[1, 2, 3])), 1, "exactly one is on chain");
    assert_eq!(world.calls.iter().filter(|call| call.ends_with("MpoolPushMessage")).count(), 1);
}

#[tokio::test]
async fn killed_between_push_and_record_while_the_message_waits() {
    killed_between_push_and_record(0).await;
}

#[tokio::test]
async fn killed_between_push_and_record_after_the_message_landed() {
    killed_between_push_and_record(9).await;
}

/// As an outbox is left by who was killed before the node heard of the message.
fn intend(outbox: &FileOutbox, draft: &Draft) {
    let intent = draft.intent().clone();
    outbox.put(&Record { intent, stage: Stage::Intended { again: None } }).expect("kept");
}

/// Killed before the node heard of it: it is sent, once, and only with leave.
#[tokio::test]
async fn an_intent_that_never_left_is_sent_once() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    intend(&outbox, &drafted(&lotus, &[5]).await);
    let open = looked_for(&Courier::new(&lotus, &outbox, Sending::Off), &outbox, Nowhere::Send).await;
    assert_eq!(open[0].stage, Stage::Intended { again: None });
    for _ in 0..3 {
        let open = looked_for(&Courier::new(&lotus, &outbox, Sending::On), &outbox, Nowhere::Send).await;
        assert!(matches!(open[0].stage, Stage::Pushed { .. }));
        node.world().mine();
    }
    assert_eq!(node.world().landed(&params(&[5])), 1);
}

/// Its ticket has expired, or its replica is another one: what is nowhere is not sent behind the sector's back.
#[tokio::test]
async fn an_intent_that_nobody_wants_any_more_is_forgotten() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    intend(&outbox, &drafted(&lotus, &[5]).await);
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let open = looked_for(&courier, &outbox, Nowhere::Keep).await;
    assert!(
        matches!(open[..], [Record { stage: Stage::Intended { .. }, .. }]),
        "it may come to light still: {open:?}"
    );
    let open = looked_for(&courier, &outbox, Nowhere::Forget).await;
    assert!(open.is_empty() && outbox.all().expect("read").is_empty());
    assert_eq!(node.world().mempool.len(), 0);
}

/// A refusal is an answer: the message is nowhere, and does not stand in the way of others. A node may also fail after it has taken
/// a message, and whoever stands between may give up before: such a message is kept, to be looked for.
#[tokio::test]
async fn a_push_that_the_node_refuses_is_forgotten_and_one_that_it_may_have_taken_is_not() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    for (expected, code, words) in [
        ("SND03", 1, "GasEstimateMessageGas error: estimating gas used: call ran out of gas"),
        ("SND03", 1, "mpool push: not enough funds: 1 < 2"),
        ("SND03", 1, "failed to sign message: no key for f3worker"),
        ("SND03", 1, "missing permission to invoke 'MpoolPushMessage' (need 'sign')"),
        ("SND03", -32601, "method 'Filecoin.MpoolPushMessage' not found"),
        ("SND06", 1, "failed to save nonce: failed to write nonce to datastore: no space left on device"),
        ("SND06", 1, "mpool push: failed to push message: error publishing message: context canceled"),
        ("SND06", -32603, "upstream timed out"),
        ("SND06", 502, "bad gateway"),
    ] {
        let draft = drafted(&lotus, &[5]).await;
        node.world().push_fails = Some((code, words.to_owned()));
        let error = courier.submit(draft).await.expect_err(words);
        assert_eq!((error.code(), error.is_of_the_message()), (expected, false), "{error}");
        let kept = outbox.all().expect("readable");
        assert_eq!(kept.len(), usize::from(expected == "SND06"), "{words}");
        kept.iter().for_each(|record| outbox.forget(record.intent.id).expect("forgotten"));
        node.world().push_fails = None;
    }
    assert_eq!(node.world().mempool.len(), 0);
}

#[tokio::test]
async fn refusals_of_the_chain_come_with_their_meaning() {
    let mut world = World::new();
    world.exit_codes.insert(28, 16);
    let Desk { node, lotus, outbox, _directory } = Desk::new(world).await;
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let record = sent(&courier, drafted(&lotus, &[1]).await).await;
    node.world().mines_when_looked_at = true;
    let outcome = courier.settle(&record).await.expect("landed");
    let Outcome::Refused { code, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(code, ExitCode(16));
    assert!(code.to_string().starts_with("exit code 16 (ErrIllegalArgument): "), "{code}");
}

fn promised(number: u64, unsealed: Option<String>) -> Effect {
    let (proof, ticket_epoch, deals) = (5, 90, Vec::new());
    let sealed = SealedCid::new(Commitment::new([1; 32])).to_string();
    Effect::PreCommit(PreCommitted { number, proof, sealed, ticket_epoch, deals, unsealed })
}

fn prove_commit_of(numbers: &[u64]) -> ProveCommit {
    let activation = |number: &u64| Activation { number: SectorNumber::new(*number), pieces: Vec::new() };
    ProveCommit {
        sectors: numbers.iter().map(activation).collect(),
        proofs: SectorProofs::Each(numbers.iter().map(|_| Proof(vec![1; 192])).collect()),
        require_activation: false,
        require_notification: false,
    }
}

/// A ProveCommitSectors3 that succeeds may still leave sectors out; its value is the pledge less the deposit.
#[tokio::test]
async fn sectors_that_were_not_activated_are_named() {
    let mut world = World::new();
    // The data of the second sector are not proven with it.
    let data = UnsealedCid::new(Commitment::new([7; 32])).to_string();
    world.mine_with(vec![promised(10, None), promised(11, Some(data))]);
    world.mine_many(11);
    let Desk { node, lotus, outbox, _directory } = Desk::new(world).await;
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let prove = prove_commit_of(&[10, 11]);
    let draft = draft_prove_commit(&lotus, MINER, &prove, &Fees::PROVE_COMMIT.into()).await.expect("a draft");
    assert_eq!(draft.intent().value, TokenAmount::from_atto(2 * (5000 - 1000)));
    let record = sent(&courier, draft).await;
    node.world().mines_when_looked_at = true;
    let outcome = courier.settle(&record).await.expect("landed");
    let Outcome::Done { failed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(failed, [(SectorNumber::new(11), ExitCode(16))]);
}

#[tokio::test]
async fn who_pays_is_chosen_and_checked() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    // A control address that the node has the key of is left alone, unless it is named: then it pays before the worker, if
    // it can.
    {
        let mut world = node.world();
        world.keys.push("f3control".to_owned());
        world.balances.insert("f3control".to_owned(), 10_u128.pow(18));
    }
    assert_eq!(drafted(&lotus, &[1]).await.intent().from, "f3worker");
    let named = |address: &str| Payment { fees: Fees::PRE_COMMIT, from: vec![address.to_owned()] };
    let sectors_1 = sectors(&[1]);
    let by = |payment| {
        let (lotus, sectors) = (&lotus, &sectors_1);
        async move { draft_pre_commit(lotus, MINER, sectors, &payment).await }
    };
    for address in ["f3control", "f0102", "t0102"] {
        assert_eq!(by(named(address)).await.expect("a draft").intent().from, "f3control", "{address}");
    }
    node.world().balances.insert("f3control".to_owned(), 1);
    assert_eq!(by(named("f3control")).await.expect("a draft").intent().from, "f3worker");
    for stranger in ["f0999", "f2actor", "f3nobody"] {
        let error = by(named(stranger)).await.expect_err("none of the miner's");
        assert_eq!((error.code(), error.is_of_the_message()), ("SND08", false), "{error}");
        let words = format!("{stranger} cannot pay for messages of f01000");
        assert!(
            error.to_string().contains(&words) && error.to_string().contains("(f0102, f0101, f0100)"),
            "{error}"
        );
    }
    node.world().balances.insert("f3worker".to_owned(), 2);
    let error = by(named("f0102")).await.expect_err("too poor");
    assert_eq!(error.code(), "SND02");
    let text = error.to_string();
    assert!(text.contains("can pay 0.020000000000001 FIL"), "{text}");
    assert!(text.contains("f0102: 0.000000000000000001 FIL, f0101: 0.000000000000000002 FIL"), "{text}");
    // What waits for a block is paid from the same balance.
    node.world().balances.insert("f3worker".to_owned(), 4 * 10_u128.pow(16));
    let draft = drafted(&lotus, &[1]).await;
    node.world().deposit = 3 * 10_u128.pow(16);
    node.world().balances.insert("f3worker".to_owned(), 6 * 10_u128.pow(16));
    let dear = drafted(&lotus, &[2]).await;
    sent(&Courier::new(&lotus, &outbox, Sending::On), dear).await;
    node.world().deposit = 1000;
    assert_eq!(drafted(&lotus, &[1]).await.intent().value, draft.intent().value, "that is left");
    let error = draft_pre_commit(&lotus, MINER, &sectors(&[1, 3]), &Fees::PRE_COMMIT.into())
        .await
        .expect_err("too poor");
    let text = error.to_string();
    assert!(text.contains("f0101: 0.06 FIL, 0.030000002525 FIL of it for messages that wait"), "{text}");
    node.world().keys.clear();
    let error =
        draft_pre_commit(&lotus, MINER, &sectors(&[1]), &Fees::PRE_COMMIT.into()).await.expect_err("no key");
    assert!(error.to_string().contains("f0101: the node has not its key"), "{error}");
}

#[tokio::test]
async fn what_would_fail_is_not_sent() {
    let mut world = World::new();
    world.estimate_fails = Some((2, "call ran out of gas".to_owned()));
    let node = StandInNode::start(world).await;
    let lotus = connect(&node.api_info()).await;
    let error = draft_pre_commit(&lotus, MINER, &sectors(&[1, 2]), &Fees::PRE_COMMIT.into())
        .await
        .expect_err("no gas");
    assert!(error.is_out_of_gas(), "{error}");
    node.world().estimate_fails = Some((1, "message execution failed: exit 16".to_owned()));
    let error =
        draft_pre_commit(&lotus, MINER, &sectors(&[1]), &Fees::PRE_COMMIT.into()).await.expect_err("refused");
    assert_eq!((error.code(), error.is_out_of_gas()), ("SND03", false));
    assert!(rpc::error::chain(&error).contains("exit 16"));
}

/// A node may forget a message before it lands; that is said and not mended by sending again.
#[tokio::test]
async fn a_message_that_a_node_forgot_is_lost_and_not_repeated() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let record = sent(&courier, drafted(&lotus, &[1]).await).await;
    {
        let mut world = node.world();
        world.mempool.clear();
        let height = world.head().height + 901;
        world.mine_at(height, Vec::new());
    }
    let error = courier.settle(&record).await.expect_err("lost");
    assert_eq!(error.code(), "SND07");
    assert_eq!(node.world().pushed.len(), 1);
    // The next start does not take it for one on its way.
    assert_eq!(looked_for(&courier, &outbox, Nowhere::Send).await, []);
    assert!(outbox.all().expect("readable").is_empty());
}

/// The proofs of these sectors, whose pre-commitments are deep enough.
async fn proofs_of(desk: &Desk, numbers: &[u64]) -> ProveCommit {
    let promised = numbers.iter().map(|number| promised(*number, None));
    desk.node.world().mine_with(promised.collect());
    desk.node.world().mine_many(11);
    prove_commit_of(numbers)
}

/// The same proof once more, after it has failed: the first message is on chain, and not the one that was meant.
#[tokio::test]
async fn a_failed_message_is_not_taken_for_the_one_after_it() {
    let desk = Desk::new(World::new()).await;
    let prove = proofs_of(&desk, &[10]).await;
    let Desk { node, lotus, outbox, _directory } = &desk;
    let draft = || async {
        draft_prove_commit(lotus, MINER, &prove, &Fees::PROVE_COMMIT.into()).await.expect("a draft")
    };
    let courier = Courier::new(lotus, outbox, Sending::On);
    let first = sent(&courier, draft().await).await;
    {
        let mut world = node.world();
        world.exit_codes.insert(34, 19);
        world.mine();
        world.exit_codes.clear();
        world.mines_when_looked_at = true;
    }
    let outcome = courier.settle(&first).await.expect("landed");
    assert!(matches!(outcome, Outcome::Refused { code: ExitCode(19), .. }), "{outcome:?}");

    // Killed before the node heard of the second.
    intend(outbox, &draft().await);
    let open = looked_for(&courier, outbox, Nowhere::Send).await;
    assert!(matches!(open[0].stage, Stage::Pushed { nonce: 42, .. }), "{open:?}");
    let outcome = courier.settle(&open[0]).await.expect("landed");
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let world = node.world();
    assert!(world.present().sectors.contains_key(&10));
    assert_eq!(
        world.pushed.iter().map(|pushed| pushed.message["Params"].to_string()).collect::<BTreeSet<_>>().len(),
        1
    );
}

/// As before, but killed after the node had it; now it lies on chain behind the one that failed.
#[tokio::test]
async fn of_two_messages_alike_the_later_one_is_found() {
    let desk = Desk::new(World::new()).await;
    let prove = proofs_of(&desk, &[10]).await;
    let Desk { node, lotus, outbox, _directory } = &desk;
    let draft = draft_prove_commit(lotus, MINER, &prove, &Fees::PROVE_COMMIT.into()).await.expect("a draft");
    let courier = Courier::new(lotus, outbox, Sending::On);
    let first = sent(&courier, draft.clone()).await;
    node.world().exit_codes.insert(34, 19);
    node.world().mine_many(7);
    courier.settle(&first).await.expect("landed");
    node.world().exit_codes.clear();

    let again = draft_prove_commit(lotus, MINER, &prove, &Fees::PROVE_COMMIT.into()).await.expect("a draft");
    intend(outbox, &again);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let other = self::outbox(elsewhere.path());
    sent(&Courier::new(lotus, &other, Sending::On), again).await;
    node.world().mine_many(2);
    let open = looked_for(&courier, outbox, Nowhere::Send).await;
    assert!(matches!(open[0].stage, Stage::Pushed { nonce: 42, .. }), "{open:?}");
    assert_eq!(node.world().pushed.len(), 2);
}
