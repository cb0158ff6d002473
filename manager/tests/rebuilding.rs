//! Sectors whose files are lost are sealed again to the replica that was proven, from the manager's record or from what a
//! file says of them.

mod world;

use rpc::pipelining::Lost;
use sealtasks::{Commitment, FileTypes, PieceInfo, SealedCid, SectorId, SectorNumber, Ticket};
use world::fake_worker::Behaviour;
use world::lost::{
    FILES, REPLICA, events, hand_in, lose, lose_file, lost, proven, rebuild, staged, wanted, with_data, yard,
};

#[tokio::test]
async fn a_sector_of_our_own_is_sealed_again_up_to_its_replica_alone() {
    let (world, _worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    let before = proven(&world, 1).await;
    rebuild(&world, 1, None).await.expect("nothing is lost, so nothing is done");
    assert_eq!(events(&proven(&world, 1).await, "sealed again"), 0);

    lose(&world, 1).await;
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!((&after.ticket, &after.comm_r, &after.proof), (&before.ticket, &before.comm_r, &before.proof));
    let counts = ["its files are lost", "result of PC1", "result of C1", "result of MOVE"];
    assert_eq!(counts.map(|text| events(&after, text)), [1, 2, 1, 2], "{:#?}", after.log);
    let holders = world.api.storage_find(SectorId::new(1000, 1), REPLICA, None).await.expect("asked");
    assert!(matches!(holders.as_slice(), [holder] if holder.can_store), "{holders:?}");
}

#[tokio::test]
async fn a_sector_that_is_sealed_for_the_first_time_is_refused_with_what_it_does() {
    for (task, words) in [("PC1", "in PreCommit1, and PC1 of it"), ("C2", "in Committing, and C2 of it")] {
        let (world, worker) = yard().await;
        worker.script(task, Behaviour::Hold);
        let sector = world.api.pledge_sector().await.expect("a pledge").number.get();
        let held = worker.call_of(task).await;
        let error = rebuild(&world, sector, None).await.expect_err("refused").to_string();
        assert!(error.contains("MGR142") && error.contains(words), "{error}");
        worker.finish(&held).await;
        assert_eq!(events(&proven(&world, sector).await, "sealed again"), 0);
    }
}

#[tokio::test]
async fn what_a_file_says_otherwise_than_the_record_changes_nothing() {
    let (world, _worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    for (given, words) in [(lost(1, 2), "another ticket"), (lost(1, 9), "another CommR")] {
        let error = rebuild(&world, 1, Some(given)).await.expect_err("refused").to_string();
        assert!(error.contains("MGR138") && error.contains(words), "{error}");
    }
    let error = rebuild(&world, 2, Some(lost(1, 2))).await.expect_err("refused").to_string();
    assert!(error.contains("MGR136"), "{error}");
    let error = rebuild(&world, 5, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR053"), "{error}");
    assert_eq!(proven(&world, 1).await.last_error, "");
}

#[tokio::test]
async fn a_sector_from_elsewhere_is_believed_with_its_old_replica_alone() {
    let (world, worker) = yard().await;
    rebuild(&world, 7, Some(lost(7, 2))).await.expect("it begins");
    rebuild(&world, 9, Some(lost(9, 4))).await.expect("it begins");
    let back = proven(&world, 7).await;
    let ticket = Ticket([8; 32]).to_string();
    assert_eq!((back.ticket.as_ref(), events(&back, "result of C1")), (Some(&ticket), 0));
    let wrong = world.sector(9, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(wrong.last_error.contains("was proven: the ticket or the data"), "{}", wrong.last_error);
    let stored = world.api.storage_find(SectorId::new(1000, 9), REPLICA, None).await.expect("asked");
    assert!(
        stored.iter().all(|holder| !holder.can_store),
        "nothing lies where good sectors belong: {stored:?}"
    );
    assert_eq!(world.api.pledge_sector().await.expect("a pledge").number, SectorNumber::new(10));

    // What the record says holds over a restart.
    let world = world.restart().await;
    world.join(&worker).await;
    assert_eq!(proven(&world, 7).await.comm_r, Some(SealedCid::new(Commitment::new([2; 32])).to_string()));
    assert_eq!(world.sector(9, |_| true).await.state, "SealPreCommit2Failed");
}

#[tokio::test]
async fn a_rebuild_with_data_names_all_that_is_missing_and_takes_only_the_right_pieces() {
    let (world, worker) = yard().await;
    let before = with_data(&world).await;
    assert!(wanted(&world, 1, None).await.is_empty(), "nothing is lost");
    lose(&world, 1).await;
    lose_file(&world, 1, FileTypes::UNSEALED).await;
    let pieces = wanted(&world, 1, None).await;
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.needed && !piece.given), "{pieces:?}");
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR153"), "{error}");
    assert!(before.data.iter().all(|data| error.contains(&data.cid)), "all are named: {error}");
    assert_eq!(proven(&world, 1).await.last_error, "");

    let error = hand_in(&world, 1, pieces[0].piece, FILES[1]).await.expect_err("another").to_string();
    assert!(error.contains("MGR1"), "{error}");
    hand_in(&world, 1, pieces[0].piece, FILES[0]).await.expect("taken");
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains(&before.data[1].cid) && !error.contains(&before.data[0].cid), "{error}");
    hand_in(&world, 1, pieces[1].piece, FILES[1]).await.expect("taken");
    assert!(wanted(&world, 1, None).await.iter().all(|piece| piece.given));
    while !worker.is_idle().await {}
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!((&after.pieces, &after.comm_r), (&before.pieces, &before.comm_r));
    let written = worker.call_of("AP").await.data.expect("data");
    assert_eq!(&written[..FILES[0].len()], FILES[0]);
    let world = world.restart().await;
    assert_eq!(staged(&world), 0, "a proven sector needs nothing staged");
}

#[tokio::test]
async fn the_unsealed_file_that_is_left_is_sealed_as_it_is() {
    let (world, worker) = yard().await;
    let before = with_data(&world).await;
    lose(&world, 1).await;
    let pieces = wanted(&world, 1, None).await;
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| !piece.needed), "{pieces:?}");
    rebuild(&world, 1, None).await.expect("it begins");
    let after = proven(&world, 1).await;
    assert_eq!(events(&after, "result of AP"), events(&before, "result of AP"), "nothing is written");
    assert_eq!((events(&after, "result of PC1"), &after.pieces), (2, &before.pieces));
    assert!(worker.deleted.lock().expect("no panic elsewhere").is_empty());
}

#[tokio::test]
async fn a_sector_with_data_that_this_manager_never_had_is_filled_with_what_is_given() {
    let (world, _worker) = yard().await;
    let known = with_data(&world).await;
    let pieces: Vec<PieceInfo> = known
        .data
        .iter()
        .map(|data| PieceInfo {
            size: data.padded_size.try_into().expect("a size"),
            cid: data.cid.parse().expect("a CID"),
        })
        .collect();
    // Who told it to the chain has named the zeros between and behind them, too; nobody has those.
    let told = known.pieces.iter().map(|(size, cid)| PieceInfo {
        size: (*size).try_into().expect("a size"),
        cid: cid.parse().expect("a CID"),
    });
    let lost = Lost { pieces: told.collect(), ..lost(7, 2) };
    assert_eq!(lost.pieces.len(), 4);
    let error = rebuild(&world, 7, Some(lost.clone())).await.expect_err("refused").to_string();
    assert!(pieces.iter().all(|piece| error.contains(&piece.cid.to_string())), "{error}");
    let unasked = hand_in(&world, 7, pieces[0], FILES[0]).await.expect_err("nobody asked").to_string();
    assert!(unasked.contains("MGR158"), "{unasked}");
    assert_eq!(wanted(&world, 7, Some(lost.clone())).await.len(), 2);
    for (piece, data) in pieces.iter().zip(FILES) {
        hand_in(&world, 7, *piece, data).await.expect("taken");
    }
    rebuild(&world, 7, Some(lost)).await.expect("it begins");
    assert_eq!(proven(&world, 7).await.pieces, known.pieces);
}

#[tokio::test]
async fn what_was_told_of_a_sector_is_corrected_while_nothing_of_it_is_stored() {
    let (world, worker) = yard().await;
    worker.script("PC2", Behaviour::Hold);
    let wrong = Lost { ticket: Ticket([7; 32]), ..lost(9, 4) };
    rebuild(&world, 9, Some(wrong)).await.expect("it begins");
    let held = worker.call_of("PC2").await;
    let error = rebuild(&world, 9, Some(lost(9, 2))).await.expect_err("it is under way").to_string();
    assert!(error.contains("MGR138") && error.contains("when that is over"), "{error}");
    worker.finish(&held).await;
    let other = world.sector(9, |detail| detail.state == "SealPreCommit2Failed").await;
    assert!(other.last_error.contains("was proven"), "{}", other.last_error);
    rebuild(&world, 9, Some(lost(9, 2))).await.expect("it begins again");
    let back = proven(&world, 9).await;
    assert_eq!(back.ticket, Some(Ticket([8; 32]).to_string()));
    assert_eq!(events(&back, "what was told of it is corrected"), 1, "{:#?}", back.log);
    // What is stored is no longer told otherwise.
    lose(&world, 9).await;
    let error = rebuild(&world, 9, Some(lost(9, 4))).await.expect_err("refused").to_string();
    assert!(error.contains("MGR138") && error.contains("another CommR"), "{error}");
}

/// Where a sector was moved last, right before the manager died, is not in what it remembers.
#[tokio::test]
async fn nothing_counts_as_lost_while_a_path_may_still_come_back_or_declare() {
    let (world, worker) = yard().await;
    world.api.pledge_sector().await.expect("a pledge");
    proven(&world, 1).await;
    lose(&world, 1).await;
    let world = world.restart().await;
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR159") && error.contains("is not back"), "{error}");
    world.join(&worker).await;
    worker.attach().await;
    let error = rebuild(&world, 1, None).await.expect_err("refused").to_string();
    assert!(error.contains("MGR159") && error.contains("still being declared"), "{error}");
    world.know(&worker).await;
    rebuild(&world, 1, None).await.expect("it begins");
}

/// A manager that is killed within its first minute has written nothing else of its index.
#[tokio::test]
async fn a_path_is_remembered_from_the_moment_it_is_attached() {
    let (world, worker) = yard().await;
    let remembered = std::sync::Arc::new(stores::MemIndex::new(std::sync::Arc::new(|| 0)));
    let file = world.dir.path().join("repo/index.snapshot");
    let read = stores::read_snapshot(&remembered, &file).expect("it is there");
    assert!(matches!(read, stores::SnapshotRead::Restored { .. }), "{read:?}");
    let path = remembered.path_view(&worker.sealing).expect("it is remembered");
    assert!(!path.confirmed);
}
