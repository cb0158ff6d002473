//! Backups for other hosts: generations are made in the manager's own repo, where data that waits for sectors is linked and
//! not copied, and their files read out over HTTP. What nobody fetches any more is removed. Never: says who may have them.

use std::fs;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rpc::backup::{BACKUP_FILE_ROUTE, BACKUP_ROUTE};
use serde::Deserialize;
use tokio::io::AsyncSeekExt as _;
use tokio_util::io::ReaderStream;

use super::generation::{Generation, MANIFEST};
use super::{Backup, BackupError, io_error, remove_tree};
use crate::service::Service;

/// Below the repo. Emptied when the manager starts.
const OUTGOING: &str = "backup-outgoing";

/// Generations kept for those that fetch them: one that is being fetched, and the next.
const KEPT: usize = 2;

/// What nobody asked for during this time is removed; a link keeps the space of data that no sector needs any more.
const UNUSED_MOST: Duration = Duration::from_secs(60 * 60);

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// The generations that other hosts fetch.
pub(crate) struct Outgoing {
    repo: PathBuf,
    target: PathBuf,
    used: Mutex<Option<Instant>>,
    /// One is made at a time.
    making: tokio::sync::Mutex<()>,
}

impl Outgoing {
    /// Of this repo. What an earlier life made is removed.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn of(repo: &Path) -> Result<Self, BackupError> {
        let target = repo.join(OUTGOING);
        remove_tree(&target)?;
        Ok(Self {
            repo: repo.to_owned(),
            target,
            used: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        })
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Removes what nobody fetches any more, until dropped.
    pub(crate) async fn tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(UNUSED_MOST / 4).await;
            let _turn = self.making.lock().await;
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            if used.is_some_and(|used| used.elapsed() > UNUSED_MOST) {
                match remove_tree(&self.target) {
                    Ok(()) => *used = None,
                    Err(error) => tracing::warn!(%error, "backups that nobody fetches stay"),
                }
            }
        }
    }

    /// The manifest of a generation that holds more than event `seen`; `None`: there is no more.
    async fn make(self: &Arc<Self>, seen: Option<u64>) -> Result<Option<Vec<u8>>, BackupError> {
        let _turn = self.making.lock().await;
        self.touch();
        let own = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let backup = Backup::outgoing(&own.repo, &own.target, KEPT)?;
            if seen == Some(backup.last_event()?) {
                return Ok(None);
            }
            let made = backup.make()?;
            own.manifest(&made.directory_name()).map(Some)
        });
        made.await.unwrap_or_else(|_| Ok(None))
    }

    fn manifest(&self, generation: &str) -> Result<Vec<u8>, BackupError> {
        let path = self.target.join(generation).join(MANIFEST);
        fs::read(&path).map_err(io_error("read", &path))
    }

    /// The place of a file that the manifest of a generation names.
    fn place(&self, generation: &str, name: &Path) -> Option<PathBuf> {
        // Names are looked for, never followed.
        let known = Generation::names(&self.target).ok()?.into_iter().find(|known| known == generation)?;
        let dir = self.target.join(known);
        let files = Generation::read(&dir).ok()?;
        files.files().iter().find(|file| file.name == name).map(|file| dir.join(&file.name))
    }
}

/// The routes.
pub(crate) fn router(service: Service) -> Router {
    Router::new().route(BACKUP_ROUTE, get(manifest)).route(BACKUP_FILE_ROUTE, get(file)).with_state(service)
}

#[derive(Deserialize)]
struct Wanted {
    generation: Option<String>,
    seen: Option<u64>,
}

async fn manifest(
    State(service): State<Service>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = service.admits(&headers) {
        return refused.into_response();
    }
    let outgoing = &service.0.outgoing;
    if let Some(generation) = wanted.generation {
        let known = Generation::names(&outgoing.target).unwrap_or_default().contains(&generation);
        outgoing.touch();
        return match known.then(|| outgoing.manifest(&generation)) {
            Some(Ok(manifest)) => manifest.into_response(),
            Some(Err(_)) | None => StatusCode::GONE.into_response(),
        };
    }
    match outgoing.make(wanted.seen).await {
        Ok(Some(manifest)) => manifest.into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, sealtasks::chain(&error)).into_response(),
    }
}

#[derive(Deserialize)]
struct WantedFile {
    generation: String,
    name: PathBuf,
    from: u64,
}

async fn file(
    State(service): State<Service>,
    Query(wanted): Query<WantedFile>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = service.admits(&headers) {
        return refused.into_response();
    }
    service.0.outgoing.touch();
    let Some(place) = service.0.outgoing.place(&wanted.generation, &wanted.name) else {
        return StatusCode::GONE.into_response();
    };
    let opened = async {
        let mut file = tokio::fs::File::open(&place).await?;
        file.seek(SeekFrom::Start(wanted.from)).await?;
        std::io::Result::Ok(file)
    };
    match opened.await {
        Ok(file) => Body::from_stream(ReaderStream::with_capacity(file, CHUNK)).into_response(),
        Err(error) => {
            tracing::warn!(place = %place.display(), %error, "a file of a backup cannot be read");
            StatusCode::GONE.into_response()
        }
    }
}
