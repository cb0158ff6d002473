//! Proofs of stored replicas for who asks over the network: Lotus's two routes with its exact requests, and our own side of
//! them. The executor is a stand-in; the real one is tested with the proofs library, and with real processes.

mod support;

use std::fs;

use hyper::StatusCode;
use sealtasks::{FileType, FileTypes, SealedCid, StorageId, VanillaInput};
use stores::{CopyKind, CopyOutcome, Index as _, ProvenCopy};
use support::{ADMIN, Node, World, ask_with, both, info, room, sector};

const COMM_R: &str = "bagboea4b5abcaaabaibqibiga4eascqlbqgq4dyqcejbgfavcylrqgi2dmob2hq7";
const COMM_D: &str = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy";

/// What Lotus's miner sends for sector 1 of f01000, byte for byte as Go encodes it.
fn single(change: (&str, &str)) -> String {
    let json = format!(
        r#"{{"Miner":1000,"Sector":{{"SealProof":5,"SectorNumber":1,"SealedCID":{{"/":"{COMM_R}"}},"Challenge":[3,62],"Update":false}},"ProofType":10}}"#
    );
    assert!(json.contains(change.0), "{change:?}");
    json.replacen(change.0, change.1, 1)
}

async fn holder(world: &World) -> Node {
    let node = world.node().await;
    node.path("a", both()).await;
    for kind in [FileType::Sealed, FileType::Cache] {
        node.put("a", sector(1), kind).await;
    }
    node
}

async fn post(node: &Node, route: &str, body: &str) -> (StatusCode, String, String) {
    let (status, head, body) =
        ask_with("POST", &format!("{}/vanilla/{route}", node.base), &[ADMIN], body).await;
    let head =
        |name: &str| head.get(name).map_or(String::new(), |value| value.to_str().expect("text").to_owned());
    let text = String::from_utf8_lossy(&body).into_owned();
    (status, format!("{} {}", head("content-type"), head("x-sealyard-failure")), text)
}

#[tokio::test]
async fn a_miner_gets_a_proof_of_one_sector() {
    let world = World::new();
    let node = holder(&world).await;
    let (status, head, body) = post(&node, "single", &single(("", ""))).await;
    assert_eq!((status, head.as_str()), (StatusCode::OK, "application/octet-stream "));
    assert!(body.starts_with(&format!("{COMM_R} [3, 62] ")), "{body}");
    // Fields that a newer Lotus adds are its own affair; so is the PoSt proof's version.
    for change in
        [("{\"Miner\"", "{\"New\":1,\"Miner\""), (",\"Update\":false", ""), ("Type\":10", "Type\":0")]
    {
        assert_eq!(post(&node, "single", &single(change)).await.0, StatusCode::OK, "{change:?}");
    }
}

#[tokio::test]
async fn a_miner_gets_the_vanilla_proofs_of_commit1() {
    let world = World::new();
    let node = holder(&world).await;
    let (ticket, seed) =
        ("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
    let json = format!(
        r#"{{"Sector":{{"ID":{{"Miner":1000,"Number":1}},"ProofType":5}},"Sealed":{{"/":"{COMM_R}"}},"Unsealed":{{"/":"{COMM_D}"}},"Ticket":"{ticket}","Seed":"{seed}"}}"#
    );
    let (status, head, body) = post(&node, "porep", &json).await;
    assert_eq!((status, head.as_str()), (StatusCode::OK, "application/octet-stream "));
    // One piece that is the whole sector, as Lotus has it.
    let piece = format!("{} {} [PieceInfo", "01".repeat(32), "02".repeat(32));
    assert!(body.starts_with(&piece) && body.contains("2048") && body.contains(COMM_D), "{body}");
    let short = json.replace(seed, "AgI=");
    let (status, _, body) = post(&node, "porep", &short).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.starts_with("2 bytes of randomness instead of 32"), "{body}");
}

#[tokio::test]
async fn what_cannot_be_proven_is_said_as_lotus_says_it() {
    let world = World::new();
    let node = holder(&world).await;
    let replica = node.dir.path().join("a/sealed/s-t01000-1");
    let cases = [
        (("\"SectorNumber\":1", "\"SectorNumber\":2"), " path_away", "s-t01000-2"),
        (("Type\":10", "Type\":15"), " ", "ProofType 15 is no PoSt proof for 2KiB sectors"),
        (("Type\":10", "Type\":8"), " ", "ProofType 8 is no PoSt proof for 2KiB sectors"),
        (("Proof\":5", "Proof\":99"), " ", "99"),
        (("bagboea", "bagb!"), " ", ""),
        (("[3,62]", "[-3]"), " ", "invalid value"),
        (("\"Miner\":1000,", ""), " ", "missing field `Miner`"),
        (("{", ""), " ", "expected"),
    ];
    for (change, class, told) in cases {
        let (status, head, body) = post(&node, "single", &single(change)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{change:?}");
        assert_eq!(head, format!("text/plain; charset=utf-8{class}"), "{change:?}: {body}");
        assert!(body.contains(told) && body.ends_with('\n'), "{change:?}: {body}");
    }
    let long = single(("[3,62]", &format!("[{}3]", "3,".repeat(1 << 20))));
    assert_eq!(post(&node, "single", &long).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    fs::write(&replica, b"this is bad").expect("written");
    let (status, head, body) = post(&node, "single", &single(("", ""))).await;
    assert_eq!((status, body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "sealed: it is bad\n"));
    assert_eq!(head, "text/plain; charset=utf-8 bad_data");
    // A disk that is not there has no bad files.
    fs::remove_file(node.dir.path().join("a/sectorstore.json")).expect("removed");
    let (_, head, body) = post(&node, "single", &single(("", ""))).await;
    assert_eq!(head, "text/plain; charset=utf-8 path_away");
    assert!(body.contains("is not mounted"), "{body}");
}

/// A manager's side: each host is asked for the copy that it has, and what is wrong with one is not said of another.
#[tokio::test]
async fn every_copy_is_proven_where_it_lies() {
    let world = World::new();
    let (asker, good, bad) = (world.node().await, world.node().await, world.node().await);
    let input = VanillaInput { sealed: COMM_R.parse::<SealedCid>().expect("a CID"), challenges: vec![3, 62] };
    let prove = || asker.remote.prove_copies(sector(1), &input);
    assert_eq!(prove().await.expect("asked"), []);
    for (node, name) in [(&good, "good"), (&bad, "other")] {
        node.path(name, both()).await;
        for kind in [FileType::Sealed, FileType::Cache] {
            node.put(name, sector(1), kind).await;
        }
    }
    let outcome = |copies: &[ProvenCopy], name: &str| {
        let path: StorageId = name.parse().expect("an id");
        let copy = copies.iter().find(|copy| copy.cache == path && copy.sealed == path);
        copy.map(|copy| copy.outcome.clone()).unwrap_or_else(|| panic!("{name}: {copies:?}"))
    };
    let copies = prove().await.expect("asked");
    assert_eq!(
        (outcome(&copies, "good"), outcome(&copies, "other")),
        (CopyOutcome::Proven, CopyOutcome::Proven)
    );
    let replica = bad.dir.path().join("other/sealed/s-t01000-1");
    fs::write(&replica, b"this is bad").expect("written");
    let copies = prove().await.expect("asked");
    assert_eq!(outcome(&copies, "other"), CopyOutcome::Faulty("sealed: it is bad".to_owned()));
    assert_eq!(outcome(&copies, "good"), CopyOutcome::Proven);
    fs::write(&replica, b"this is busy").expect("written");
    assert_eq!(
        outcome(&prove().await.expect("asked"), "other"),
        CopyOutcome::Untold("no executor starts".to_owned())
    );
    // One whose host is gone, and one whose two files lie on different hosts.
    let gone = "http://127.0.0.1:1/remote";
    let away = info("away", gone, both());
    world.index.attach(away, room(1 << 40)).await.expect("attached");
    let files = FileTypes::SEALED | FileTypes::CACHE;
    world
        .index
        .declare(&"away".parse().expect("an id"), sector(1).id, files, CopyKind::Secondary)
        .await
        .expect("declared");
    let copies = prove().await.expect("asked");
    assert!(matches!(outcome(&copies, "away"), CopyOutcome::Away(why) if why.contains(gone)), "{copies:?}");
    assert_eq!(copies.len(), 3);
    fs::remove_file(&replica).expect("removed");
    bad.local.redeclare(None, true).await.expect("declared");
    assert_eq!(prove().await.expect("asked").len(), 2, "a cache alone is no copy");
}

fn prove_input() -> VanillaInput {
    VanillaInput { sealed: COMM_R.parse::<SealedCid>().expect("a CID"), challenges: vec![3, 62] }
}

async fn only_outcome(asker: &Node) -> CopyOutcome {
    let copies = asker.remote.prove_copies(sector(1), &prove_input()).await.expect("asked");
    let [copy] = &copies[..] else { panic!("{copies:?}") };
    copy.outcome.clone()
}

/// Files on two hosts are nobody's fault, and neither is a host that is gone, or one that has not got the path now.
#[tokio::test]
async fn files_apart_and_paths_that_are_not_there_are_no_faults() {
    let world = World::new();
    let asker = world.node().await;
    let (one, other) = (world.node().await, world.node().await);
    one.path("one", both()).await;
    one.put("one", sector(1), FileType::Sealed).await;
    other.path("other", both()).await;
    other.put("other", sector(1), FileType::Cache).await;
    let apart = only_outcome(&asker).await;
    assert!(matches!(&apart, CopyOutcome::Untold(why) if why.contains("different hosts")), "{apart:?}");
    // The same with a host that is gone.
    other.local.close_all().await.expect("closed");
    let away = info("away", "http://127.0.0.1:1/remote", both());
    world.index.attach(away, room(1 << 40)).await.expect("attached");
    let path: StorageId = "away".parse().expect("an id");
    world
        .index
        .declare(&path, sector(1).id, FileType::Cache.into(), CopyKind::Primary)
        .await
        .expect("declared");
    let gone = only_outcome(&asker).await;
    assert!(matches!(&gone, CopyOutcome::Away(why) if why.starts_with("storage path away: ")), "{gone:?}");
    // Brought together on a host that is up, and whose disk is not.
    one.put("one", sector(1), FileType::Cache).await;
    world.index.drop_files(&path, sector(1).id, FileType::Cache.into()).await.expect("dropped");
    assert_eq!(only_outcome(&asker).await, CopyOutcome::Proven);
    let (dir, aside) = (one.dir.path().join("one"), one.dir.path().join("aside"));
    fs::rename(&dir, &aside).expect("unmounted");
    fs::create_dir(&dir).expect("its mount point");
    let unmounted = only_outcome(&asker).await;
    assert!(matches!(&unmounted, CopyOutcome::Away(why) if why.contains("not mounted")), "{unmounted:?}");
    // Its host started again without the disk: it knows nothing of the path.
    one.local.close_all().await.expect("closed");
    world.index.attach(info("one", &one.base, both()), room(1 << 40)).await.expect("attached");
    let path: StorageId = "one".parse().expect("an id");
    let files = FileTypes::SEALED | FileTypes::CACHE;
    world.index.declare(&path, sector(1).id, files, CopyKind::Primary).await.expect("declared");
    let closed = only_outcome(&asker).await;
    assert!(matches!(&closed, CopyOutcome::Away(why) if why.contains("s-t01000-1")), "{closed:?}");
}

/// A Lotus worker says no class; what its words name decides, and whether it has the path at all.
#[tokio::test]
async fn a_lotus_holder_s_words_say_whose_fault_it_is() {
    let world = World::new();
    let asker = world.node().await;
    let stat = r#"{"Capacity":1,"Available":1,"FSAvailable":1,"Reserved":0,"Max":0,"Used":0}"#;
    let cases = [
        ("failed to generate a vanilla proof: invalid tree", 200, CopyOutcome::Faulty as fn(String) -> _),
        ("acquire sector: finding path", 200, CopyOutcome::Untold),
        ("could not open replica: Too many open files (os error 24)", 200, CopyOutcome::Untold),
        ("fsstat: path not found", 404, CopyOutcome::Away),
    ];
    for (at, (says, status, expected)) in cases.into_iter().enumerate() {
        let route = axum::Router::new()
            .route(
                "/remote/vanilla/single",
                axum::routing::post(move || async move {
                    (StatusCode::INTERNAL_SERVER_ERROR, format!("{says}\n"))
                }),
            )
            .route(
                "/remote/stat/{id}",
                axum::routing::get(
                    move || async move { (StatusCode::from_u16(status).expect("a status"), stat) },
                ),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, route).await });
        let name: StorageId = format!("lotus{at}").parse().expect("an id");
        world.index.attach(info(name.as_str(), &base, both()), room(1 << 40)).await.expect("attached");
        let files = FileTypes::SEALED | FileTypes::CACHE;
        world.index.declare(&name, sector(1).id, files, CopyKind::Primary).await.expect("declared");
        let outcome = only_outcome(&asker).await;
        assert_eq!(
            std::mem::discriminant(&outcome),
            std::mem::discriminant(&expected(String::new())),
            "{says}: {outcome:?}"
        );
        world.index.drop_files(&name, sector(1).id, files).await.expect("dropped");
    }
}
