//! Before a peer's DELETE is obeyed: is there truly another copy, and is it as long as ours?
//!
//! The index's word is not enough, since a declaration can outlive its file. A plain file's length is asked for with
//! a one-byte range, which Lotus answers too; a directory's set of files with HEAD, which Lotus refuses (405). A Lotus
//! peer that declared a directory as primary has it if exactly these files were all sent from here, or if the tar stream
//! that it sends of it has them, every byte; that is looked at where the directory is small, as it is after sealing.
//! Otherwise ours is kept and listed. Whoever holds the other copy is shown a token for looking at that copy, never the
//! one that the requester showed us: a URL is what some peer declared, and a Lotus's token opens everything.

use std::path::PathBuf;
use std::time::SystemTime;

use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use sealtasks::{FetchVerb, FileType, SectorId, SectorStorageInfo, StorageId};

use super::files::IDENTITY_HEADER;
use super::{ONE_BYTE, listing};
use crate::disk;
use crate::error::StoreError;
use crate::index::CopyKind;
use crate::kept::KeptFile;
use crate::layout;
use crate::local::{Local, chain};
use crate::members::{MANIFEST_HEADER, Manifest};
use crate::peer::Peer;
use crate::peer_tokens::{PeerTokens, TokenUse};

/// What a peer asks to be deleted here.
#[derive(Clone, Copy)]
pub(crate) struct Deletion<'a> {
    pub(crate) sector: SectorId,
    pub(crate) kind: FileType,
    pub(crate) keep: &'a [StorageId],
}

/// What the check is made with.
pub(crate) struct Asker<'a> {
    pub(crate) local: &'a Local,
    pub(crate) peer: &'a Peer,
    /// One token for each twin, for looking at it alone.
    pub(crate) tokens: &'a dyn PeerTokens,
}

/// Which of our copies have a primary twin elsewhere and may go: those in paths not to be kept. Refuses with
/// [`StoreError::LastCopy`] unless all of them have. What is kept so is listed; see [`Local::kept_files`].
pub(crate) async fn check(asker: &Asker<'_>, deletion: Deletion<'_>) -> Result<Vec<StorageId>, StoreError> {
    let Deletion { sector, kind, keep } = deletion;
    let local = asker.local;
    let mut holders = local.holders_of(sector, kind).await?;
    // The copy that the requester has just made is the likeliest twin.
    holders.sort_by_key(|holder| !keep.contains(&holder.id));
    let doomed = |holder: &&SectorStorageInfo| local.dir(&holder.id).is_ok() && !keep.contains(&holder.id);
    let twins: Vec<_> = holders.iter().filter(|holder| holder.primary && !doomed(holder)).collect();
    let mut checked = Vec::new();
    for copy in holders.iter().filter(doomed) {
        let file = layout::file(&local.dir(&copy.id)?, sector, kind);
        checked.push(copy.id.clone());
        let Some((manifest, identity)) = look_at(file.clone()).await? else { continue };
        let ours = Ours { file, sector, kind, manifest, identity, copy: copy.primary.into() };
        if let Err(why) = find_twin(asker, &ours, &twins).await {
            let (path, asked) = (copy.id.clone(), SystemTime::now());
            local.note_kept(KeptFile { path, sector, kind, why: why.clone(), asked }).await;
            return Err(StoreError::LastCopy { sector, kind, why });
        }
    }
    Ok(checked)
}

/// The same for one file of the open path `id` that the index does not list there.
pub(crate) async fn check_unlisted(
    asker: &Asker<'_>,
    sector: SectorId,
    kind: FileType,
    id: &StorageId,
) -> Result<(), StoreError> {
    let file = layout::file(&asker.local.dir(id)?, sector, kind);
    let Some((manifest, identity)) = look_at(file.clone()).await? else { return Ok(()) };
    let holders = asker.local.holders_of(sector, kind).await?;
    let twins: Vec<_> = holders.iter().filter(|holder| holder.primary && holder.id != *id).collect();
    let ours = Ours { file, sector, kind, manifest, identity, copy: CopyKind::Primary };
    find_twin(asker, &ours, &twins).await.map_err(|why| StoreError::LastCopy { sector, kind, why })
}

/// The same for the file in the open path `id`, listed there or not. What is kept so is listed; see
/// [`Local::kept_files`].
pub(crate) async fn check_exactly(
    asker: &Asker<'_>,
    sector: SectorId,
    kind: FileType,
    id: &StorageId,
) -> Result<(), StoreError> {
    let checked = check_unlisted(asker, sector, kind, id).await;
    if let Err(StoreError::LastCopy { why, .. }) = &checked {
        let (path, asked) = (id.clone(), SystemTime::now());
        asker.local.note_kept(KeptFile { path, sector, kind, why: why.clone(), asked }).await;
    }
    checked
}

/// Looks for a whole copy among the primary ones; else why the last of them is none.
async fn find_twin(asker: &Asker<'_>, ours: &Ours, twins: &[&SectorStorageInfo]) -> Result<(), String> {
    let mut why = "no other primary copy is known".to_owned();
    for twin in twins {
        let found = match asker.local.dir(&twin.id) {
            // Looked at once more, and more closely, when the index has dropped ours.
            Ok(dir) => look_at(layout::file(&dir, ours.sector, ours.kind)).await.map(|found| {
                Twin::same_if(found.is_some_and(|(all, _)| all.makes_up_for(&ours.manifest, ours.copy)))
            }),
            Err(_) => confirmed(asker, twin, ours).await,
        };
        why = match found {
            Ok(Twin::Same) => return Ok(()),
            Ok(Twin::Differs) => format!("the copy in path {} differs in names or lengths", twin.id),
            Ok(Twin::Ours) => format!("the copy in path {} is this file under another name", twin.id),
            Ok(Twin::Untold) => format!(
                "the files of the copy in path {} cannot be told: its holder, a Lotus, lists none, they were not all \
                 sent from here, and they are too many bytes to be looked through there, or it does not send them",
                twin.id
            ),
            Err(error) => format!("the copy in path {} could not be checked: {}", twin.id, chain(&error)),
        };
    }
    Err(why)
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
    /// It is no other copy: its holder sees our file, on a mount that both have.
    Ours,
}

impl Twin {
    const fn same_if(same: bool) -> Self {
        if same { Self::Same } else { Self::Differs }
    }
}

/// The copy that is to be deleted.
struct Ours {
    file: PathBuf,
    sector: SectorId,
    kind: FileType,
    manifest: Manifest,
    identity: String,
    copy: CopyKind,
}

impl Ours {
    /// A Sealyard says which file it answers with.
    fn is_what(&self, answer: &HeaderMap) -> bool {
        let told = answer.get(IDENTITY_HEADER).and_then(|value| value.to_str().ok());
        told == Some(&*self.identity)
    }
}

/// Names and lengths of a copy here, and which file it is; `None` when it is not on disk at all.
async fn look_at(file: PathBuf) -> Result<Option<(Manifest, String)>, StoreError> {
    let look = move || {
        let found = match std::fs::metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(StoreError::io("look at", &file))?,
        };
        Ok(Some((disk::shape(&file)?.into_iter().collect(), disk::identity(&found))))
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(Err(StoreError::Lost { what: "looking at a copy" }))
}

async fn confirmed(asker: &Asker<'_>, twin: &SectorStorageInfo, ours: &Ours) -> Result<Twin, StoreError> {
    let mut last = Ok(Twin::Differs);
    for url in &twin.urls {
        let (path, sector, kind) = (&twin.id, ours.sector, ours.kind);
        let wanted = TokenUse { url, path, sector, kind, verb: FetchVerb::Look };
        last = match asker.tokens.token(wanted).await {
            Ok(token) if ours.kind.is_directory() => same_files(asker, url, &token, ours).await,
            Ok(token) => same_length(asker.peer, url, &token, ours).await,
            Err(source) => Err(StoreError::Transport { url: url.clone(), source }),
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn same_length(peer: &Peer, url: &str, token: &str, ours: &Ours) -> Result<Twin, StoreError> {
    let one_byte = (RANGE, HeaderValue::from_static(ONE_BYTE));
    let answer = peer.ask(Method::GET, url, token, Some(one_byte)).await?;
    let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
    if ours.is_what(answer.headers()) {
        return Ok(Twin::Ours);
    }
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let total: Option<u64> =
        range.and_then(|text| text.rsplit_once('/')).and_then(|(_, total)| total.parse().ok());
    Ok(Twin::same_if(total.is_some() && total == ours.manifest.0.values().next().copied()))
}

async fn same_files(asker: &Asker<'_>, url: &str, token: &str, ours: &Ours) -> Result<Twin, StoreError> {
    let answer = asker.peer.ask(Method::HEAD, url, token, None).await?;
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        // Lotus's receiver takes a directory whole or not at all, and our sender never ends a cut-off stream well.
        let (sent, file, files) = (asker.local.sent().clone(), ours.file.clone(), ours.manifest.clone());
        let whole = tokio::task::spawn_blocking(move || sent.whole(&file, &files)).await.unwrap_or(false);
        if whole {
            return Ok(Twin::Same);
        }
        return streamed_files(asker.peer, url, token, ours).await;
    }
    let answer = Peer::expect(url, answer, StatusCode::OK).await?;
    if ours.is_what(answer.headers()) {
        return Ok(Twin::Ours);
    }
    let manifest = answer.headers().get(MANIFEST_HEADER).and_then(|value| value.to_str().ok());
    Ok(match manifest {
        Some(manifest) => Twin::same_if(Manifest::parse(manifest)?.makes_up_for(&ours.manifest, ours.copy)),
        None => Twin::Untold,
    })
}

/// What a Lotus sends of its copy. That its stream ends proves nothing, so only what came counts.
async fn streamed_files(peer: &Peer, url: &str, token: &str, ours: &Ours) -> Result<Twin, StoreError> {
    if ours.manifest.0.values().sum::<u64>() > listing::LISTED_MAX {
        return Ok(Twin::Untold);
    }
    let answer = peer.ask(Method::GET, url, token, None).await?;
    if answer.status() != StatusCode::OK {
        return Ok(Twin::Untold);
    }
    Ok(Twin::same_if(listing::list(url, answer).await?.makes_up_for(&ours.manifest, ours.copy)))
}
