//! Before a peer's DELETE is obeyed: is there truly another copy, and is it as long as ours?
//!
//! The index's word is not enough, since a declaration can outlive its file. A plain file's length is asked for with
//! a one-byte range, which Lotus answers too; a directory's set of files with HEAD, which Lotus refuses (405). A Lotus
//! peer that declared a directory as primary is believed: our own sender never ends a cut-off stream well.

use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderValue, Method, StatusCode};
use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};

use crate::disk;
use crate::error::StoreError;
use crate::layout;
use crate::local::{Local, chain};
use crate::members::{MANIFEST_HEADER, Manifest};
use crate::peer::Peer;

/// What a peer asks to be deleted here.
#[derive(Clone, Copy)]
pub(super) struct Deletion<'a> {
    pub(super) sector: SectorId,
    pub(super) kind: FileType,
    pub(super) keep: &'a [StorageId],
}

/// Refuses with [`StoreError::LastCopy`] unless every copy that would be deleted has a primary twin elsewhere. The
/// twin is asked with the requester's own token.
pub(super) async fn check(
    local: &Local,
    peer: &Peer,
    token: &str,
    deletion: Deletion<'_>,
) -> Result<(), StoreError> {
    let Deletion { sector, kind, keep } = deletion;
    let mut holders = local.holders_of(sector, kind).await?;
    // The copy that the requester has just made is the likeliest twin.
    holders.sort_by_key(|holder| !keep.contains(&holder.id));
    let open: Vec<_> = local.paths();
    let dir_of =
        |holder: &SectorStorageInfo| open.iter().find(|path| path.id == holder.id).map(|path| &path.dir);
    let doomed = |holder: &&SectorStorageInfo| dir_of(holder).is_some() && !keep.contains(&holder.id);
    for copy in holders.iter().filter(doomed) {
        let Some(file) = dir_of(copy).map(|dir| layout::file(dir, sector, kind)) else { continue };
        let Some(manifest) = shape(file).await? else { continue };
        let ours = Ours { manifest, primary: copy.primary };
        let mut why = "no other primary copy is known".to_owned();
        let mut safe = false;
        for twin in holders.iter().filter(|holder| holder.primary && !doomed(holder)) {
            let found = match dir_of(twin) {
                Some(dir) => shape(layout::file(dir, sector, kind))
                    .await
                    .map(|all| all.is_some_and(|all| ours.is_safe_in(&all))),
                None => confirmed(peer, token, twin, kind, &ours).await,
            };
            match found {
                Ok(true) => {
                    safe = true;
                    break;
                }
                Ok(false) => why = format!("the copy in path {} differs in names or lengths", twin.id),
                Err(error) => {
                    why = format!("the copy in path {} could not be checked: {}", twin.id, chain(&error))
                }
            }
        }
        if !safe {
            return Err(StoreError::LastCopy { sector, kind, why });
        }
    }
    Ok(())
}

/// The copy that is to be deleted.
struct Ours {
    manifest: Manifest,
    primary: bool,
}

impl Ours {
    /// A primary copy must be matched file by file; a secondary one may hold what only sealing needed.
    fn is_safe_in(&self, twin: &Manifest) -> bool {
        twin.covers(&self.manifest) || (!self.primary && twin.outlives(&self.manifest))
    }
}

/// Names and lengths of a copy here; `None` when it is not on disk at all.
async fn shape(file: std::path::PathBuf) -> Result<Option<Manifest>, StoreError> {
    let look = move || {
        if file.exists() { disk::shape(&file).map(|all| Some(all.into_iter().collect())) } else { Ok(None) }
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(Err(StoreError::Lost { what: "looking at a copy" }))
}

async fn confirmed(
    peer: &Peer,
    token: &str,
    twin: &SectorStorageInfo,
    kind: FileType,
    ours: &Ours,
) -> Result<bool, StoreError> {
    let mut last = Ok(false);
    for url in &twin.urls {
        last = if kind.is_directory() {
            same_files(peer, token, url, ours).await
        } else {
            same_length(peer, token, url, ours).await
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn same_length(peer: &Peer, token: &str, url: &str, ours: &Ours) -> Result<bool, StoreError> {
    let one_byte = (RANGE, HeaderValue::from_static("bytes=0-0"));
    let answer = peer.ask(Method::GET, url, token, Some(one_byte)).await?;
    let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let total: Option<u64> =
        range.and_then(|text| text.rsplit_once('/')).and_then(|(_, total)| total.parse().ok());
    Ok(total.is_some() && total == ours.manifest.0.values().next().copied())
}

async fn same_files(peer: &Peer, token: &str, url: &str, ours: &Ours) -> Result<bool, StoreError> {
    let answer = peer.ask(Method::HEAD, url, token, None).await?;
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        return Ok(true);
    }
    let answer = Peer::expect(url, answer, StatusCode::OK).await?;
    let manifest = answer.headers().get(MANIFEST_HEADER).and_then(|value| value.to_str().ok());
    Ok(match manifest {
        Some(manifest) => ours.is_safe_in(&Manifest::parse(manifest)?),
        None => false,
    })
}
