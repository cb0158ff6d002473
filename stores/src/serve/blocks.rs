//! What a Sealyard gets: a file's content list, and blocks of it with their hashes.
//!
//! What was announced is remembered for a while, so that a transfer goes on while the index is away. The files are looked at
//! before and after every block: one that was written meanwhile has another etag, and its block is refused.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sealtasks::{FileType, SectorId};
use tokio::sync::OwnedSemaphorePermit;

use super::files;
use crate::content::{Block, CONTENT_TYPE_BLOCK, CONTENT_TYPE_LIST, Content, HASH};
use crate::direct::{BUFFER, Lent, Source};
use crate::error::StoreError;
use crate::identity::look;
use crate::rehearsal;

/// Contents whose place is remembered.
const ANNOUNCED_MAX: usize = 512;
/// In the place of the hash for a peer that does not want one.
const NO_HASH: [u8; HASH] = [0; HASH];

/// Where announced contents lie, the latest last.
#[derive(Default)]
pub(super) struct Announced(Mutex<VecDeque<(String, SectorId, FileType, PathBuf)>>);

impl Announced {
    pub(super) fn place(&self, etag: &str, sector: SectorId, kind: FileType) -> Option<PathBuf> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            known.iter().find(|(of, whose, what, _)| of == etag && *whose == sector && *what == kind)?;
        Some(found.3.clone())
    }

    fn add(&self, etag: &str, sector: SectorId, kind: FileType, path: &Path) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(of, ..)| of != etag);
        if known.len() >= ANNOUNCED_MAX {
            known.pop_front();
        }
        known.push_back((etag.to_owned(), sector, kind, path.to_owned()));
    }

    /// Answers with the content list.
    pub(super) async fn announce(
        &self,
        path: PathBuf,
        sector: SectorId,
        kind: FileType,
        rehearses: bool,
    ) -> Result<Response, StoreError> {
        let looked = path.clone();
        let telling = move || {
            let mut content = look(&looked)?;
            if rehearses {
                rehearsal::tell_data(&looked, &mut content)?;
            }
            Ok(content)
        };
        let content = files::blocking(telling).await?;
        self.add(&content.etag, sector, kind, &path);
        let body = serde_json::to_vec(&content).map_err(|source| StoreError::Json { path, source })?;
        Ok(([(CONTENT_TYPE, CONTENT_TYPE_LIST)], body).into_response())
    }
}

/// Whether every block's hash goes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashing {
    /// It does.
    Blake3,
    /// The peer does not want it.
    Off,
}

/// Answers with a block; 412 when the file is no longer the one with this etag, 416 for spans that it does not have.
pub(super) async fn block(
    path: PathBuf,
    asked: (&str, &str),
    hashing: Hashing,
    slot: OwnedSemaphorePermit,
) -> Result<Response, StoreError> {
    let looked = path.clone();
    let content = match files::blocking(move || look(&looked)).await {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(StatusCode::PRECONDITION_FAILED.into_response());
        }
        content => content?,
    };
    if content.etag != asked.0 {
        return Ok(StatusCode::PRECONDITION_FAILED.into_response());
    }
    let block = match content.asked(asked.1) {
        Ok(block) => block,
        Err(error) => {
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, error.to_string()).into_response());
        }
    };
    let response = Response::builder()
        .header(CONTENT_TYPE, CONTENT_TYPE_BLOCK)
        .header(CONTENT_LENGTH, block.bytes() + HASH as u64);
    let body = files::stream(slot, move |emit| send(&path, &content, &block, hashing, emit));
    Ok(response.body(body).unwrap_or_else(|_: axum::http::Error| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

fn send(
    path: &Path,
    content: &Content,
    block: &Block,
    hashing: Hashing,
    emit: &mut dyn FnMut(Bytes) -> bool,
) -> Result<(), StoreError> {
    let mut hasher = blake3::Hasher::new();
    for span in &block.spans {
        let (name, length) = &content.files[span.file];
        let file = if name.is_empty() { path.to_owned() } else { path.join(name) };
        let source = Source::open(&file, *length).map_err(StoreError::io("open", &file))?;
        let mut done = 0;
        while done < span.bytes {
            let wanted = usize::try_from(span.bytes - done).unwrap_or(BUFFER).min(BUFFER);
            let mut buffer = Lent::take();
            let got = source
                .read(&mut buffer, span.offset + done, wanted)
                .map_err(StoreError::io("read", &file))?;
            if got < wanted {
                return Err(StoreError::io("read", &file)(std::io::ErrorKind::UnexpectedEof.into()));
            }
            done += got as u64;
            let piece = Bytes::from_owner(buffer);
            // Sent first: the network works while this thread hashes.
            if !emit(piece.clone()) {
                return Ok(());
            }
            if hashing == Hashing::Blake3 {
                hasher.update(&piece);
            }
        }
    }
    if look(path)?.etag != content.etag {
        return Err(StoreError::Archive { reason: format!("{path:?} changed while it was sent") });
    }
    let hash = if hashing == Hashing::Blake3 { *hasher.finalize().as_bytes() } else { NO_HASH };
    emit(Bytes::copy_from_slice(&hash));
    Ok(())
}
