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
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sealtasks::{FetchVerb, FileType, SectorId, SectorStorageInfo, StorageId};

use super::files::IDENTITY_HEADER;
use super::{ONE_BYTE, listing};
use crate::disk;
use crate::error::StoreError;
use crate::index::CopyKind;
use crate::kept::KeptFile;
use crate::layout;
use crate::local::{Checked, Local, chain};
use crate::members::{MANIFEST_HEADER, Manifest};
use crate::peer::Peer;
use crate::peer_tokens::{PeerTokens, TokenUse};
use crate::space::FileKey;

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
pub(crate) async fn check(asker: &Asker<'_>, deletion: Deletion<'_>) -> Result<Vec<Checked>, StoreError> {
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
        let Some((manifest, identity)) = look_at(local, file.clone()).await? else {
            checked.push(Checked { copy: copy.id.clone(), twin: None });
            continue;
        };
        let ours = Doomed { file: Some(file), sector, kind, manifest, identity, copy: copy.primary.into() };
        match find_twin(asker, &ours, &twins).await {
            Ok(twin) => checked.push(Checked { copy: copy.id.clone(), twin: Some(twin) }),
            Err(why) => {
                let (path, asked) = (copy.id.clone(), SystemTime::now());
                local.note_kept(KeptFile { path, sector, kind, why: why.clone(), asked }).await;
                return Err(StoreError::LastCopy { sector, kind, why });
            }
        }
    }
    Ok(checked)
}

/// The same for `entry`, a `copy` that lies in the open path `id` and is not listed there: a file in its place, or one that was
/// set aside for another. Which primary copy makes up for it; `None` when it is not there.
pub(crate) async fn check_entry(
    asker: &Asker<'_>,
    (sector, kind): FileKey,
    id: &StorageId,
    (entry, copy): (PathBuf, CopyKind),
) -> Result<Option<StorageId>, StoreError> {
    let in_place = entry == layout::file(&asker.local.dir(id)?, sector, kind);
    let Some((manifest, identity)) = look_at(asker.local, entry.clone()).await? else { return Ok(None) };
    let holders = asker.local.holders_of(sector, kind).await?;
    let is_other = |holder: &&SectorStorageInfo| holder.primary && !(in_place && holder.id == *id);
    let twins: Vec<_> = holders.iter().filter(is_other).collect();
    let ours = Doomed { file: Some(entry), sector, kind, manifest, identity, copy };
    let twin = find_twin(asker, &ours, &twins).await;
    twin.map(Some).map_err(|why| StoreError::LastCopy { sector, kind, why })
}

/// The same for the file in its place in the open path `id`, listed there or not. What is kept so is listed; see
/// [`Local::kept_files`].
pub(crate) async fn check_exactly(
    asker: &Asker<'_>,
    sector: SectorId,
    kind: FileType,
    id: &StorageId,
) -> Result<Checked, StoreError> {
    let file = layout::file(&asker.local.dir(id)?, sector, kind);
    let checked = check_entry(asker, (sector, kind), id, (file, CopyKind::Primary)).await;
    if let Err(StoreError::LastCopy { why, .. }) = &checked {
        let (path, asked) = (id.clone(), SystemTime::now());
        asker.local.note_kept(KeptFile { path, sector, kind, why: why.clone(), asked }).await;
    }
    Ok(Checked { copy: id.clone(), twin: checked? })
}

/// Whether a holder elsewhere may be asked to delete its copy. A Sealyard makes sure for itself. A Lotus does not: what it has
/// is compared here with the primary copies in the paths `keep`.
pub(crate) async fn check_elsewhere(
    asker: &Asker<'_>,
    (sector, kind): FileKey,
    holder: &SectorStorageInfo,
    keep: &[StorageId],
) -> Result<(), StoreError> {
    let mut last = Err(StoreError::NotOpen { id: holder.id.clone() });
    for url in &holder.urls {
        let wanted = TokenUse { url, path: &holder.id, sector, kind, verb: FetchVerb::Look };
        last = match asker.tokens.token(wanted).await {
            Ok(token) => told_at(asker.peer, url, &token, kind).await,
            Err(source) => Err(StoreError::Transport { url: url.clone(), source }),
        };
        if last.is_ok() {
            break;
        }
    }
    let Some(manifest) = last? else { return Ok(()) };
    let holders = asker.local.holders_of(sector, kind).await?;
    let twins: Vec<_> =
        holders.iter().filter(|one| one.primary && keep.contains(&one.id) && one.id != holder.id).collect();
    let copy = holder.primary.into();
    let theirs = Doomed { file: None, sector, kind, manifest, identity: String::new(), copy };
    let twin = find_twin(asker, &theirs, &twins).await;
    twin.map(drop).map_err(|why| StoreError::LastCopy { sector, kind, why })
}

/// What a Lotus says that it has of a file; `None` when a Sealyard answers.
async fn told_at(
    peer: &Peer,
    url: &str,
    token: &str,
    kind: FileType,
) -> Result<Option<Manifest>, StoreError> {
    let is_sealyard = |answer: &HeaderMap| answer.contains_key(IDENTITY_HEADER);
    if kind.is_directory() {
        let answer = peer.ask(Method::HEAD, url, token, None).await?;
        if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
            let answer = Peer::expect(url, answer, StatusCode::OK).await?;
            let text = "it is no Lotus, and does not say which file it answers with".to_owned();
            let stranger = || StoreError::PeerAnswer { url: url.to_owned(), status: 200, text };
            return if is_sealyard(answer.headers()) { Ok(None) } else { Err(stranger()) };
        }
        let answer =
            Peer::expect(url, peer.ask(Method::GET, url, token, None).await?, StatusCode::OK).await?;
        return listing::list(url, answer).await.map(Some);
    }
    let answer = peer.ask(Method::GET, url, token, Some(one_byte())).await?;
    let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
    if is_sealyard(answer.headers()) {
        return Ok(None);
    }
    let text = "it does not say how long the file is".to_owned();
    let silent = || StoreError::PeerAnswer { url: url.to_owned(), status: 206, text };
    let length = length_of(answer.headers()).ok_or_else(silent)?;
    Ok(Some([(String::new(), length)].into_iter().collect()))
}

/// Looks for a whole copy among the primary ones: the path of the first; else why the last of them is none.
async fn find_twin(
    asker: &Asker<'_>,
    ours: &Doomed,
    twins: &[&SectorStorageInfo],
) -> Result<StorageId, String> {
    let mut why = "no other primary copy is known".to_owned();
    for twin in twins {
        let found = match asker.local.dir(&twin.id) {
            // Looked at once more, and more closely, when the index has dropped ours.
            Ok(dir) => look_at(asker.local, layout::file(&dir, ours.sector, ours.kind)).await.map(|found| {
                Twin::same_if(found.is_some_and(|(all, _)| all.makes_up_for(&ours.manifest, ours.copy)))
            }),
            Err(_) => confirmed(asker, twin, ours).await,
        };
        why = match found {
            Ok(Twin::Same) => return Ok(twin.id.clone()),
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

/// What another copy is, compared with the one that is to go.
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
struct Doomed {
    /// Where it lies here.
    file: Option<PathBuf>,
    sector: SectorId,
    kind: FileType,
    manifest: Manifest,
    identity: String,
    copy: CopyKind,
}

impl Doomed {
    /// A Sealyard says which file it answers with.
    fn is_what(&self, answer: &HeaderMap) -> bool {
        let told = answer.get(IDENTITY_HEADER).and_then(|value| value.to_str().ok());
        told == Some(&*self.identity)
    }
}

/// Names and lengths of a copy here, and which file it is; `None` when it is not on disk at all.
async fn look_at(local: &Local, file: PathBuf) -> Result<Option<(Manifest, String)>, StoreError> {
    let at = file.clone();
    let look = move || {
        let found = match std::fs::metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(StoreError::io("look at", &file))?,
        };
        Ok(Some((disk::shape(&file)?.into_iter().collect(), disk::identity(&found))))
    };
    local.look(&at, "looking at a copy", look).await
}

async fn confirmed(asker: &Asker<'_>, twin: &SectorStorageInfo, ours: &Doomed) -> Result<Twin, StoreError> {
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

async fn same_length(peer: &Peer, url: &str, token: &str, ours: &Doomed) -> Result<Twin, StoreError> {
    let answer = peer.ask(Method::GET, url, token, Some(one_byte())).await?;
    let answer = Peer::expect(url, answer, StatusCode::PARTIAL_CONTENT).await?;
    if ours.is_what(answer.headers()) {
        return Ok(Twin::Ours);
    }
    let total = length_of(answer.headers());
    Ok(Twin::same_if(total.is_some() && total == ours.manifest.0.values().next().copied()))
}

fn one_byte() -> (HeaderName, HeaderValue) {
    (RANGE, HeaderValue::from_static(ONE_BYTE))
}

/// A whole file's length, as an answer with a part of it tells.
fn length_of(answer: &HeaderMap) -> Option<u64> {
    let range = answer.get(CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.parse().ok()
}

async fn same_files(asker: &Asker<'_>, url: &str, token: &str, ours: &Doomed) -> Result<Twin, StoreError> {
    let answer = asker.peer.ask(Method::HEAD, url, token, None).await?;
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        // Lotus's receiver takes a directory whole or not at all, and our sender never ends a cut-off stream well.
        let (sent, file, files) = (asker.local.sent().clone(), ours.file.clone(), ours.manifest.clone());
        let whole = move || file.is_some_and(|file| sent.whole(&file, &files));
        if tokio::task::spawn_blocking(whole).await.unwrap_or(false) {
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
async fn streamed_files(peer: &Peer, url: &str, token: &str, ours: &Doomed) -> Result<Twin, StoreError> {
    if ours.manifest.0.values().sum::<u64>() > listing::LISTED_MAX {
        return Ok(Twin::Untold);
    }
    let answer = peer.ask(Method::GET, url, token, None).await?;
    if answer.status() != StatusCode::OK {
        return Ok(Twin::Untold);
    }
    Ok(Twin::same_if(listing::list(url, answer).await?.makes_up_for(&ours.manifest, ours.copy)))
}
