//! Whether the URLs of storage paths answer. A URL that failed for two hours is set aside by [`MemIndex`].

use std::time::Duration;

use futures_util::future::join_all;
use sealtasks::StorageId;
use tokio::time::timeout;

use crate::error::StoreError;
use crate::local::chain;
use crate::mem_index::MemIndex;
use crate::remote::Remote;

/// A URL that does not answer within this time has failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// URLs asked at once.
const TOGETHER: usize = 16;

/// Whoever says so serves no path at this URL.
const NOT_SERVED: [u16; 3] = [404, 405, 410];

impl Remote {
    /// Asks every URL of every path that is served by others, set aside or not, and tells `index` which answered.
    pub async fn ask_urls(&self, index: &MemIndex) {
        let own = self.open_paths();
        let others = index.paths().into_iter().filter(|path| !own.contains(&path.info.id));
        let urls: Vec<(StorageId, String)> = others
            .flat_map(|path| path.info.urls.into_iter().map(move |url| (path.info.id.clone(), url)))
            .collect();
        for some in urls.chunks(TOGETHER) {
            let asked = some.iter().map(|(id, url)| async move { (id, url, self.failure_of(id, url).await) });
            for (id, url, failure) in join_all(asked).await {
                if let Some(why) = &failure {
                    tracing::debug!(path = %id, url, why, "a storage URL does not answer");
                }
                index.url_asked(id, url, failure);
            }
        }
    }

    /// Why a URL does not serve a path. A peer that answers with an error is there, and may recover.
    pub(crate) async fn failure_of(&self, id: &StorageId, base: &str) -> Option<String> {
        match timeout(ANSWER_MAX, self.stat_at(id, base)).await {
            Ok(Ok(_)) => None,
            Ok(Err(StoreError::PeerAnswer { status, .. })) if !NOT_SERVED.contains(&status) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        }
    }
}
