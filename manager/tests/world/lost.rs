//! Sectors whose files are lost, and what brings them back.

use std::sync::Arc;

use rpc::ApiError;
use rpc::extension::SectorDetail;
use rpc::pipelining::{Lost, PieceParts, WantedPiece};
use sealtasks::{
    Commitment, FileTypes, PieceInfo, RegisteredSealProof, SealedCid, SectorId, SectorNumber, SectorRef,
    SectorSize, StorageId, Ticket,
};

use super::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use super::{ALL, World, world};

/// What lies in a sector with data.
pub const FILES: [&[u8]; 2] = [&[7; 200], &[9; 500]];

pub const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

pub async fn yard() -> (World, Arc<FakeWorker>) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    (world, worker)
}

pub async fn update(world: &World, number: u64, state: &str) -> Result<(), ApiError> {
    world.handle.pipeline_api().update_state(SectorNumber::new(number).into(), state.to_owned()).await
}

pub fn parts(data: &[u8]) -> PieceParts {
    Box::pin(futures_util::stream::iter([Ok(data.to_vec().into())]))
}

pub async fn wanted(world: &World, number: u64, lost: Option<Lost>) -> Vec<WantedPiece> {
    world.handle.pipeline_api().rebuild_pieces(SectorNumber::new(number).into(), lost).await.expect("told")
}

pub async fn hand_in(world: &World, number: u64, piece: PieceInfo, data: &[u8]) -> Result<(), ApiError> {
    world.handle.pipeline_api().give_piece(SectorNumber::new(number).into(), piece, parts(data)).await
}

/// Sector 1 with two files as data, proven.
pub async fn with_data(world: &World) -> SectorDetail {
    let api = world.handle.pipeline_api();
    for data in FILES {
        api.add_piece(None, None, parts(data)).await.expect("taken");
    }
    api.start_sealing(SectorNumber::new(1).into()).await.expect("it starts");
    proven(world, 1).await
}

pub fn staged(world: &World) -> usize {
    std::fs::read_dir(world.dir.path().join("repo/staging")).expect("the staging").count()
}

pub async fn rebuild(world: &World, number: u64, lost: Option<Lost>) -> Result<(), ApiError> {
    world.handle.pipeline_api().rebuild(SectorNumber::new(number).into(), lost).await
}

/// Sector 1 with two files as data, all of which is lost and was given again, while it is filled anew: the first AddPiece, held.
pub async fn refilled(world: &World, worker: &FakeWorker) -> Taken {
    with_data(world).await;
    lose(world, 1).await;
    lose_file(world, 1, FileTypes::UNSEALED).await;
    for (piece, data) in wanted(world, 1, None).await.iter().zip(FILES) {
        hand_in(world, 1, piece.piece, data).await.expect("taken");
    }
    while !worker.is_idle().await {}
    worker.forget();
    worker.script("AP", Behaviour::Hold);
    rebuild(world, 1, None).await.expect("it begins");
    worker.call_of("AP").await
}

pub async fn proven(world: &World, number: u64) -> SectorDetail {
    world.sector(number, |detail| detail.state == "Proving").await
}

/// A sector that is known by a file alone; fake workers make the replica of 2s of every sector.
pub fn lost(number: u64, sealed: u8) -> Lost {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let sector = SectorRef { id: SectorId::new(1000, number), proof };
    Lost {
        sector,
        ticket: Ticket([8; 32]),
        sealed: SealedCid::new(Commitment::new([sealed; 32])),
        pieces: Vec::new(),
    }
}

/// Its files are gone, and the index knows.
pub async fn lose(world: &World, number: u64) {
    for file in REPLICA.iter() {
        lose_file(world, number, file.into()).await;
    }
}

pub async fn lose_file(world: &World, number: u64, file: FileTypes) {
    let sector = SectorId::new(1000, number);
    for holder in world.api.storage_find(sector, file, None).await.expect("asked") {
        world.api.storage_drop(holder.id, sector, file).await.expect("dropped");
    }
}

pub fn events(detail: &SectorDetail, text: &str) -> usize {
    detail.log.iter().filter(|(_, _, line)| line.contains(text)).count()
}

/// A path for sealing alone that was away and comes back with what was lost.
pub async fn old_path(world: &World) -> Arc<FakeWorker> {
    let away = FakeWorker::new(Plan { name: "V", seed: 9, tasks: &[], stores: false, sealyard: true });
    world.join(&away).await;
    away
}

pub async fn held_by(world: &World, path: &StorageId, number: u64) -> FileTypes {
    let files = world.api.storage_files(path.clone()).await.expect("known");
    let of = files.iter().filter(|file| file.sector == SectorId::new(1000, number));
    of.fold(FileTypes::NONE, |all, file| all | file.types).intersection(REPLICA)
}

pub async fn unsealed_in(world: &World, number: u64) -> Vec<StorageId> {
    let found = world.api.storage_find(SectorId::new(1000, number), FileTypes::UNSEALED, None).await;
    found.expect("asked").into_iter().map(|holder| holder.id).collect()
}
