//! Files that the index names where they may not lie any more: those that an operator has deleted are found when something
//! fails for want of them, or because they seem to be in the way. Whoever has the path looks, and takes out of the index what is
//! not there, so that the next try goes on. Never: takes out anything itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use sealtasks::{FileType, PathOrder, PathReport, SectorId, StorageId};

use crate::driver::Driver;
use crate::service::Service;

/// How long somebody waits for those who have a sector's files to have looked for them.
const AWAITED_MAX: Duration = Duration::from_secs(20);

type NamedFile = (StorageId, SectorId, FileType);

impl Service {
    /// Before it is judged by the index whether a sector is lost: whoever has a path in which the index names files of it looks
    /// whether they are there. A path that is away, or does not answer in time, leaves everything as it was.
    pub(crate) async fn look_for(&self, sector: SectorId) {
        // Who works on it is about to make its files.
        let busy = self.view(move |driver: &Driver| driver.is_worked_on(sector)).await.unwrap_or(true);
        if self.worked_on(sector, busy).is_some() {
            return;
        }
        let held = self.0.index.sector_files(sector).into_iter();
        let named = held.map(|held| {
            let files = held.types.union(held.unconfirmed).iter().map(|kind| (held.id.clone(), sector, kind));
            (held.id.clone(), files.collect())
        });
        let looks = join_all(named.map(|(path, files)| look_in(self, path, files)));
        if tokio::time::timeout(AWAITED_MAX, looks).await.is_err() {
            tracing::warn!(%sector, "not everybody has looked in time whether its files are there");
        }
    }
}

/// Asks those who have the paths. One who does not answer, or is a Lotus, leaves everything as it was.
pub(crate) async fn look_again(service: Service, files: Vec<NamedFile>) {
    let mut by_path: BTreeMap<StorageId, Vec<_>> = BTreeMap::new();
    for file in files {
        by_path.entry(file.0.clone()).or_default().push(file);
    }
    for (path, files) in by_path {
        look_in(&service, path, files).await;
    }
}

async fn look_in(service: &Service, path: StorageId, files: Vec<NamedFile>) {
    match service.hand_look(&path, PathOrder::DropMissing { files }).await {
        Ok(PathReport::Dropped(gone)) => {
            for (path, sector, file) in gone {
                tracing::warn!(%sector, %file, %path, "was listed there, and is not there");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%path, %error, "nobody looked whether its files are there"),
    }
}
