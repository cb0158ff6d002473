//! Files that the index names where they may not lie any more: those that an operator has deleted are found when something
//! fails for want of them, or because they seem to be in the way. Whoever has the path looks, and takes out of the index what is
//! not there, so that the next try goes on. Never: takes out anything itself.

use std::collections::BTreeMap;

use sealtasks::{FileType, PathOrder, PathReport, SectorId, StorageId};

use crate::service::Service;

/// Asks those who have the paths. One who does not answer, or is a Lotus, leaves everything as it was.
pub(crate) async fn look_again(service: Service, files: Vec<(StorageId, SectorId, FileType)>) {
    let mut by_path: BTreeMap<StorageId, Vec<_>> = BTreeMap::new();
    for file in files {
        by_path.entry(file.0.clone()).or_default().push(file);
    }
    for (path, files) in by_path {
        let order = PathOrder::DropMissing { files };
        match service.hand_look(&path, order).await {
            Ok(PathReport::Dropped(gone)) => {
                for (path, sector, file) in gone {
                    tracing::warn!(%sector, %file, %path, "was listed there, and is not there");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%path, %error, "nobody looked whether its files are there"),
        }
    }
}
