//! Lost sectors, read from the stand-in's chain.

#[path = "../../tests/standin/mod.rs"]
mod standin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chain::params::{Activation, PieceActivation, ProveCommit, SectorProofs, prove_commit};
use chain::recovery::{Export, export, export_printed, parse, parse_printed, write};
use chain::{Lotus, entropy};
use rpc::{ApiInfo, Trust};
use sealtasks::{
    ActorId, Commitment, PaddedPieceSize, PieceInfo, Proof, SealedCid, SectorNumber, UnsealedCid,
};
use serde_json::{Value, json};
use standin::{Deal, Effect, PreCommitted, Proven, StandInNode, World, comm_d, randomness_text};

const MINER: ActorId = ActorId::new(1000);
const SEAL_RANDOMNESS: u64 = 5;

fn replica(number: u64) -> String {
    SealedCid::new(Commitment::new([u8::try_from(number).expect("small"); 32])).to_string()
}

fn commitment(byte: u8) -> String {
    UnsealedCid::new(Commitment::new([byte; 32])).to_string()
}

fn promised(number: u64, deals: Vec<u64>, unsealed: Option<u8>) -> Effect {
    Effect::PreCommit(PreCommitted {
        number,
        proof: 5,
        sealed: replica(number),
        ticket_epoch: 90,
        deals,
        unsealed: unsealed.map(commitment),
    })
}

/// With the pieces of which the message tells that proves it.
fn with_pieces(number: u64, pieces: &[(u64, u8)]) -> Effect {
    let named: Vec<_> = pieces.iter().map(|(size, byte)| (*size, commitment(*byte))).collect();
    let unsealed = comm_d(&named, 2048);
    let (proof, sealed, ticket_epoch, deals) = (5, replica(number), 90, vec![]);
    Effect::PreCommit(PreCommitted { number, proof, sealed, ticket_epoch, deals, unsealed })
}

fn proven(number: u64) -> Effect {
    Effect::Prove(Proven { number, proof: 5, sealed: replica(number), key: None })
}

async fn connect(node: &StandInNode) -> Lotus {
    let info: ApiInfo = node.api_info().parse().expect("an API info");
    Lotus::connect(&info, &Trust::system()).await.expect("connected")
}

async fn run(node: &StandInNode, numbers: &[u64]) -> Export {
    let lotus = connect(node).await;
    let numbers: Vec<_> = numbers.iter().copied().map(SectorNumber::new).collect();
    let mut heard = 0;
    let export = export(&lotus, MINER, &numbers, |done, all| {
        heard = done;
        assert!(done <= all);
    });
    let export = export.await.expect("a miner");
    assert_eq!(heard, numbers.len());
    export
}

/// A chain with sectors of every kind.
fn world() -> World {
    let mut world = World::new();
    world.deals.insert(71, Deal { piece: commitment(1), size: 1024 });
    world.deals.insert(72, Deal { piece: commitment(2), size: 512 });
    world.mine_with(vec![
        promised(1, vec![], None),
        promised(2, vec![71, 72], Some(9)),
        with_pieces(3, &[(256, 3), (1024, 4)]),
        promised(4, vec![], None),
        promised(5, vec![], Some(8)),
        promised(6, vec![], None),
        promised(9, vec![73], Some(8)),
    ]);
    let piece = |size: u64, byte| PieceActivation {
        piece: PieceInfo::new(PaddedPieceSize::try_from(size).expect("a size"), Commitment::new([byte; 32])),
        allocation: None,
        notify: Vec::new(),
    };
    let prove = ProveCommit {
        sectors: vec![
            Activation { number: SectorNumber::new(1), pieces: vec![] },
            Activation { number: SectorNumber::new(3), pieces: vec![piece(256, 3), piece(1024, 4)] },
        ],
        proofs: SectorProofs::Each(vec![Proof(vec![1; 192]), Proof(vec![2; 192])]),
        require_activation: false,
        require_notification: false,
    };
    let message = |to: &str, method: u64, params: &[u8]| {
        json!({"CID": {"/": format!("bafy{to}{method}")}, "Message": {
            "Version": 0, "To": to, "From": "f3worker", "Nonce": 1, "Value": "8000", "GasLimit": 1, "GasFeeCap": "1",
            "GasPremium": "1", "Method": method, "Params": STANDARD.encode(params),
        }})
    };
    let params = prove_commit(&prove).expect("parameters");
    // Other messages of the same tipset, and the right one by the miner's address of another kind.
    world.mempool.push(message("f01001", 34, &params));
    world.mempool.push(message("f01000", 5, &[0x80]));
    world.mempool.push(message("f2actor", 34, &params));
    world.mine_at(1012, vec![proven(2), proven(5), proven(9)]);
    assert!(
        [1, 3].iter().all(|number| world.present().sectors.contains_key(number)),
        "the message proves them"
    );
    world.mine_with(vec![
        Effect::Prove(Proven { number: 4, proof: 5, sealed: replica(40), key: Some(replica(4)) }),
        Effect::Prove(Proven { number: 6, proof: 5, sealed: replica(60), key: None }),
        Effect::Prove(Proven { number: 7, proof: 5, sealed: replica(7), key: None }),
        promised(8, vec![], None),
    ]);
    world.mine();
    world
}

#[tokio::test]
async fn committed_capacity_and_deals_are_read_and_the_rest_is_explained() {
    let node = StandInNode::start(world()).await;
    let export = run(&node, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 404]).await;
    let numbers: Vec<u64> = export.metadata.sectors.iter().map(|sector| sector.number.get()).collect();
    assert_eq!(numbers, [1, 2, 3, 8]);
    let text = randomness_text(SEAL_RANDOMNESS, 90, &STANDARD.encode(entropy(MINER)), 0);
    for sector in &export.metadata.sectors {
        assert_eq!(STANDARD.encode(sector.ticket.0), text);
        assert_eq!(sector.sealed.to_string(), replica(sector.number.get()));
        assert_eq!(sector.proof.number(), 5);
    }
    let pieces = |at: usize| -> Vec<(u64, String)> {
        let pieces = &export.metadata.sectors[at].pieces;
        pieces.iter().map(|piece| (piece.size.get(), piece.cid.to_string())).collect()
    };
    assert_eq!(pieces(0), []);
    assert_eq!(pieces(1), [(1024, commitment(1)), (512, commitment(2))], "of deals");
    assert_eq!(pieces(2), [(256, commitment(3)), (1024, commitment(4))], "of the message that proved it");
    let failed: Vec<(u64, &str)> =
        export.failed.iter().map(|failed| (failed.number.get(), failed.why.code())).collect();
    assert_eq!(
        failed,
        [(4, "EXP02"), (5, "EXP07"), (6, "EXP04"), (7, "EXP03"), (9, "EXP05"), (404, "EXP01")]
    );
    // What is written is what is read.
    assert_eq!(parse(write(&export.metadata).as_bytes()), Ok(export.metadata));
}

/// A node that does not keep old state gives the head's sectors, and says of the others what would help.
#[tokio::test]
async fn a_node_that_forgets_is_named() {
    let mut world = world();
    world.remembers_from = 1013;
    let node = StandInNode::start(world).await;
    let export = run(&node, &[1, 8]).await;
    assert_eq!(export.metadata.sectors.len(), 1);
    assert_eq!(export.metadata.sectors[0].number, SectorNumber::new(8));
    let why = rpc::error::chain(&export.failed[0].why);
    assert!(why.contains("the pre-commitment of s-t01000-1"), "{why}");
    assert!(why.contains("failed to load state tree"), "{why}");
}

/// The body of a sector's pre-commitment as an explorer prints it.
fn body(number: u64, deals: &[u64], unsealed: Option<u8>) -> Value {
    json!({
        "RegisteredProof": 5, "SectorNumber": number, "SealedCid": replica(number), "SealRandEpoch": 90,
        "DealIds": deals, "Expiration": 2480426, "UnsealedCid": unsealed.map(commitment),
    })
}

/// What the message said is all that such a node lacks; what it knows must agree.
#[tokio::test]
async fn printed_pre_commitments_stand_in_for_what_a_node_forgets() {
    let whole = StandInNode::start(world()).await;
    let expected = run(&whole, &[1, 2, 3, 8]).await.metadata;
    let mut world = world();
    world.remembers_from = world.head().height;
    let node = StandInNode::start(world).await;
    let lotus = connect(&node).await;
    let printed = |bodies: &[Value]| parse_printed(json!(bodies).to_string().as_bytes()).expect("printed");
    let both = comm_d(&[(256, commitment(3)), (1024, commitment(4))], 2048).expect("CommD");
    let mut third = body(3, &[], None);
    third["UnsealedCid"] = json!(both);
    let bodies = [body(1, &[], None), body(2, &[71, 72], Some(9)), third, body(8, &[], None)];
    assert_eq!(run(&node, &[1, 2, 3]).await.metadata.sectors, [], "the node alone tells none of them");
    let export = export_printed(&lotus, MINER, &printed(&bodies), |_, _| {}).await.expect("a miner");
    assert_eq!(export.metadata, expected, "{:?}", export.failed);

    let mut other = body(8, &[], None);
    other["SealedCid"] = json!(replica(9));
    let mut another_proof = body(1, &[], None);
    another_proof["RegisteredProof"] = json!(8);
    for (body, code) in [
        (other, "EXP04"),
        (another_proof, "CHN05"),
        (body(4, &[], None), "EXP02"),
        (body(6, &[], None), "EXP04"),
        (body(200, &[], None), "EXP01"),
        (body(9, &[73], Some(8)), "EXP05"),
        (body(5, &[], Some(8)), "EXP07"),
    ] {
        let export = export_printed(&lotus, MINER, &printed(&[body]), |_, _| {}).await.expect("a miner");
        let failed: Vec<&str> = export.failed.iter().map(|failed| failed.why.code()).collect();
        assert_eq!((failed, export.metadata.sectors.len()), (vec![code], 0));
    }
}
