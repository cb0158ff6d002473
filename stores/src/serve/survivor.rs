//! Before a peer's DELETE is obeyed: is there truly another copy, and is it as long as ours?
//!
//! The index's word is not enough, since a declaration can outlive its file. A plain file's length is asked for with
//! a one-byte range, which Lotus answers too; a directory's set of files with HEAD, which Lotus refuses (405). A Lotus
//! peer that declared a directory as primary has it if exactly these files were all sent from here, or if the tar stream
//! that it sends of it has them, every byte; that is looked at where the directory is small, as it is after sealing.
//! Otherwise ours is kept and listed.

use std::path::PathBuf;
use std::time::SystemTime;

use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderValue, Method, StatusCode};
use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};

use super::listing;
use super::sent::Sent;
use crate::disk;
use crate::error::StoreError;
use crate::kept::KeptFile;
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

/// What the check is made with; the twin is asked with the requester's own token.
pub(super) struct Asker<'a> {
    pub(super) local: &'a Local,
    pub(super) peer: &'a Peer,
    pub(super) sent: &'a Sent,
    pub(super) token: &'a str,
}

/// Refuses with [`StoreError::LastCopy`] unless every copy that would be deleted has a primary twin elsewhere. What is
/// kept so is listed; see [`Local::kept_files`].
pub(super) async fn check(asker: &Asker<'_>, deletion: Deletion<'_>) -> Result<(), StoreError> {
    let Deletion { sector, kind, keep } = deletion;
    let local = asker.local;
    let mut holders = local.holders_of(sector, kind).await?;
    // The copy that the requester has just made is the likeliest twin.
    holders.sort_by_key(|holder| !keep.contains(&holder.id));
    let open: Vec<_> = local.paths();
    let dir_of =
        |holder: &SectorStorageInfo| open.iter().find(|path| path.id == holder.id).map(|path| &path.dir);
    let doomed = |holder: &&SectorStorageInfo| dir_of(holder).is_some() && !keep.contains(&holder.id);
    for copy in holders.iter().filter(doomed) {
        let Some(file) = dir_of(copy).map(|dir| layout::file(dir, sector, kind)) else { continue };
        let Some(manifest) = shape(file.clone()).await? else { continue };
        let ours = Ours { file, kind, manifest, primary: copy.primary };
        let mut why = "no other primary copy is known".to_owned();
        let mut safe = false;
        for twin in holders.iter().filter(|holder| holder.primary && !doomed(holder)) {
            let found = match dir_of(twin) {
                Some(dir) => shape(layout::file(dir, sector, kind))
                    .await
                    .map(|all| Twin::same_if(all.is_some_and(|all| ours.is_safe_in(&all)))),
                None => confirmed(asker, twin, &ours).await,
            };
            why = match found {
                Ok(Twin::Same) => {
                    safe = true;
                    break;
                }
                Ok(Twin::Differs) => format!("the copy in path {} differs in names or lengths", twin.id),
                Ok(Twin::Untold) => format!(
                    "the files of the copy in path {} cannot be told: its holder, a Lotus, lists none, they were not all \
                     sent from here, and they are too many bytes to be looked through there, or it does not send them",
                    twin.id
                ),
                Err(error) => {
                    format!("the copy in path {} could not be checked: {}", twin.id, chain(&error))
                }
            }
        }
        if !safe {
            let (path, asked) = (copy.id.clone(), SystemTime::now());
            local.note_kept(KeptFile { path, sector, kind, why: why.clone(), asked });
            return Err(StoreError::LastCopy { sector, kind, why });
        }
    }
    Ok(())
}

/// What another copy is, compared with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// It has all that ours has.
    Same,
    /// It lacks something, or something has another length.
    Differs,
    /// Its holder does not say.
    Untold,
}

impl Twin {
    const fn same_if(same: bool) -> Self {
        if same { Self::Same } else { Self::Differs }
    }
}

/// The copy that is to be deleted.
struct Ours {
    file: PathBuf,
    kind: FileType,
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
async fn shape(file: PathBuf) -> Result<Option<Manifest>, StoreError> {
    let look = move || {
        if file.exists() { disk::shape(&file).map(|all| Some(all.into_iter().collect())) } else { Ok(None) }
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(Err(StoreError::Lost { what: "looking at a copy" }))
}

async fn confirmed(asker: &Asker<'_>, twin: &SectorStorageInfo, ours: &Ours) -> Result<Twin, StoreError> {
    let mut last = Ok(Twin::Differs);
    for url in &twin.urls {
        last = if ours.kind.is_directory() {
            same_files(asker, url, ours).await
        } else {
            same_length(asker, url, ours).await
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn same_length(asker: &Asker<'_>, url: &str, ours: &Ours) -> Result<Twin, StoreError> {
    let one_byte = (RANGE, HeaderValue::from_static("bytes=0-0"));
    let answer = asker.peer.ask(Method::GET, url, asker.token, Some(one_byte)).await?;
    let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let total: Option<u64> =
        range.and_then(|text| text.rsplit_once('/')).and_then(|(_, total)| total.parse().ok());
    Ok(Twin::same_if(total.is_some() && total == ours.manifest.0.values().next().copied()))
}

async fn same_files(asker: &Asker<'_>, url: &str, ours: &Ours) -> Result<Twin, StoreError> {
    let answer = asker.peer.ask(Method::HEAD, url, asker.token, None).await?;
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        // Lotus's receiver takes a directory whole or not at all, and our sender never ends a cut-off stream well.
        if asker.sent.whole(&ours.file, &ours.manifest) {
            return Ok(Twin::Same);
        }
        return streamed_files(asker, url, ours).await;
    }
    let answer = Peer::expect(url, answer, StatusCode::OK).await?;
    let manifest = answer.headers().get(MANIFEST_HEADER).and_then(|value| value.to_str().ok());
    Ok(match manifest {
        Some(manifest) => Twin::same_if(ours.is_safe_in(&Manifest::parse(manifest)?)),
        None => Twin::Untold,
    })
}

/// What a Lotus sends of its copy. That its stream ends proves nothing, so only what came counts.
async fn streamed_files(asker: &Asker<'_>, url: &str, ours: &Ours) -> Result<Twin, StoreError> {
    if ours.manifest.0.values().sum::<u64>() > listing::LISTED_MAX {
        return Ok(Twin::Untold);
    }
    let answer = asker.peer.ask(Method::GET, url, asker.token, None).await?;
    if answer.status() != StatusCode::OK {
        return Ok(Twin::Untold);
    }
    Ok(Twin::same_if(ours.is_safe_in(&listing::list(url, answer).await?)))
}
