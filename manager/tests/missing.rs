//! Files that the index names where they do not lie any more: whoever has the path looks when something fails for them.

mod world;

use std::fs;

use rpc::storage::PathHost;
use sealtasks::{FailureClass, FileType, FileTypes, PathOrder, PathReport, SectorId, SectorNumber};
use world::LIMIT;
use world::lost::{events, proven, refilled, yard};

#[tokio::test]
async fn an_unsealed_file_that_an_operator_has_deleted_is_in_nobodys_way() {
    let (world, worker) = yard().await;
    let first = refilled(&world, &worker).await;
    let (dir, own) = world.own_path(&[]).await;
    let (sector, file) = (SectorId::new(1000, 1), dir.join("unsealed/s-t01000-1"));
    fs::create_dir_all(dir.join("unsealed")).expect("a directory");
    fs::write(&file, [7; 2048]).expect("a file");
    world.api.storage_declare(own.clone(), sector, FileTypes::UNSEALED, true).await.expect("declared");
    worker.fail_as(&first, FailureClass::Environment).await;
    world.sector(1, |detail| detail.state == "AddPieceFailed").await;
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried");
    let parked = world.sector(1, |detail| events(detail, "holds an unsealed file") == 1).await;
    assert!(parked.last_error.contains(own.as_str()), "{}", parked.last_error);
    let order = PathOrder::DropMissing { files: vec![(own.clone(), sector, FileType::Unsealed)] };
    let looked = world.handle.storage_api().path_order(PathHost::Manager, order).await.expect("looked");
    assert_eq!(looked, PathReport::Dropped(Vec::new()), "it is there");
    let names_it = || world.handle.index().sector_files(sector).iter().any(|held| held.id == own);
    assert!(names_it());

    fs::remove_file(&file).expect("deleted");
    world.api.retry_sector(SectorNumber::new(1).into()).await.expect("tried");
    let forgotten = async {
        while names_it() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, forgotten).await.expect("its path was looked at");
    // The next try, unless this one came late enough; by itself it comes in a while.
    let _under_way = world.api.retry_sector(SectorNumber::new(1).into()).await;
    proven(&world, 1).await;
}
