//! Bodies: a file or a part of it, and a directory as tar. Disks are read on blocking threads, a bounded number of
//! pieces ahead of the network.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::range::{self, Part};
use crate::archive;
use crate::disk;
use crate::error::StoreError;
use crate::members::MANIFEST_HEADER;
use crate::sent::{Seen, Sent};

/// The header in which a Sealyard says which file it answers with; see [`disk::identity`].
pub(super) const IDENTITY_HEADER: &str = "x-sealyard-file";

/// Read from disk in pieces of this size (bytes).
const CHUNK: usize = 1 << 20;
/// Pieces read ahead of the network, per request.
const CHUNKS_AHEAD: usize = 2;
/// A peer that takes nothing for so long is given up on.
const STALL_MAX: Duration = Duration::from_secs(120);

/// A whole file or one range of it. The head alone without a slot to send in.
pub(super) async fn file(
    path: PathBuf,
    headers: &HeaderMap,
    slot: Option<OwnedSemaphorePermit>,
) -> Result<Response, StoreError> {
    let opening = path.clone();
    let (file, length, modified, identity) = blocking(move || {
        let file = File::open(&opening).map_err(StoreError::io("open", &opening))?;
        let found = file.metadata().map_err(StoreError::io("look at", &opening))?;
        Ok((file, found.len(), found.modified().ok(), disk::identity(&found)))
    })
    .await?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let modified = modified.map(whole_seconds);
    let since = text(IF_MODIFIED_SINCE).and_then(|text| httpdate::parse_http_date(text).ok());
    if let (Some(modified), Some(since)) = (modified, since)
        && modified <= since
    {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let part = range::parse(text(RANGE), length);
    let (status, first, count) = match part {
        Part::Whole => (StatusCode::OK, 0, length),
        Part::Slice { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Part::Unsatisfiable => {
            let star = format!("bytes */{length}");
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, star)]).into_response());
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(ACCEPT_RANGES, "bytes")
        .header(IDENTITY_HEADER, identity)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, count);
    if let Part::Slice { first, last } = part {
        response = response.header(CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
    }
    if let Some(modified) = modified {
        response = response.header(LAST_MODIFIED, httpdate::fmt_http_date(modified));
    }
    let body = match slot {
        Some(slot) => stream(slot, move |emit| send_part(&path, file, first, count, emit)),
        None => Body::empty(),
    };
    Ok(response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response()))
}

/// A directory as tar, with its manifest in a header. The head alone without a slot to send in.
pub(super) async fn directory(
    path: PathBuf,
    headers: &HeaderMap,
    slot: Option<OwnedSemaphorePermit>,
    sent: &Sent,
) -> Result<Response, StoreError> {
    if headers.contains_key(RANGE) {
        return Err(StoreError::Archive {
            reason: "a directory has no ranges; ask for all of it".to_owned(),
        });
    }
    let listing = path.clone();
    let look = move || {
        let found = std::fs::metadata(&listing).map_err(StoreError::io("look at", &listing))?;
        Ok((Seen::of_dir(&listing)?, disk::identity(&found)))
    };
    let (seen, identity) = blocking(look).await?;
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/x-tar")
        .header(IDENTITY_HEADER, identity)
        .header(MANIFEST_HEADER, seen.files.to_header());
    let body = match slot {
        Some(slot) => {
            let sent = sent.clone();
            stream(slot, move |emit| {
                let mut heard = true;
                archive::send(&path, &seen.files, &mut |chunk| {
                    heard = emit(chunk);
                    heard
                })?;
                if heard {
                    sent.note(path, seen);
                }
                Ok(())
            })
        }
        None => Body::empty(),
    };
    // A file name that fits no header is no sector's file.
    response.body(body).map_err(|error| StoreError::Archive { reason: format!("its manifest: {error}") })
}

/// One step of a body. A sender that stops without `Done` has failed, whatever the reason.
enum Piece {
    Data(Bytes),
    Failed(StoreError),
    Done,
}

/// A body filled from a blocking thread. A failure there breaks the connection, so that the peer sees it: a tar stream
/// that merely ended early would look whole to Lotus.
pub(super) fn stream(
    slot: OwnedSemaphorePermit,
    produce: impl FnOnce(&mut dyn FnMut(Bytes) -> bool) -> Result<(), StoreError> + Send + 'static,
) -> Body {
    let (send, receive) = mpsc::channel(CHUNKS_AHEAD);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _slot = slot;
        // The receiver goes away with the connection; a peer that stops reading is given up on.
        let hand_on = |piece| match send.try_send(piece) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(piece)) => {
                matches!(runtime.block_on(timeout(STALL_MAX, send.send(piece))), Ok(Ok(())))
            }
        };
        let mut heard = true;
        let result = produce(&mut |chunk| {
            heard = heard && hand_on(Piece::Data(chunk));
            heard
        });
        let last = match result {
            Ok(()) => Piece::Done,
            Err(error) => {
                tracing::warn!(error = crate::local::chain(&error), "sending a sector file failed");
                Piece::Failed(error)
            }
        };
        if heard {
            hand_on(last);
        }
    });
    Body::from_stream(futures_util::stream::unfold(Some(receive), |receive| async move {
        let mut receive = receive?;
        match receive.recv().await {
            Some(Piece::Data(chunk)) => Some((Ok(chunk), Some(receive))),
            Some(Piece::Done) => None,
            Some(Piece::Failed(error)) => Some((Err(error), None)),
            None => Some((Err(StoreError::Lost { what: "sending a sector file" }), None)),
        }
    }))
}

fn send_part(
    path: &std::path::Path,
    mut file: File,
    first: u64,
    count: u64,
    emit: &mut dyn FnMut(Bytes) -> bool,
) -> Result<(), StoreError> {
    file.seek(SeekFrom::Start(first)).map_err(StoreError::io("read", path))?;
    let mut buffer = BytesMut::new();
    let mut left = count;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        buffer.resize(most, 0);
        let got = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
        if got == 0 {
            return Err(StoreError::io("read", path)(io::ErrorKind::UnexpectedEof.into()));
        }
        left -= got as u64;
        if !emit(buffer.split_to(got).freeze()) {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "reading a sector file" }))
}

/// HTTP dates have no fractions; comparing with them would always find the file newer.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::members::Manifest;

    async fn collect(
        produce: impl FnOnce(&mut dyn FnMut(Bytes) -> bool) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Bytes, axum::Error> {
        let slot = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a slot");
        stream(slot, produce).collect().await.map(|body| body.to_bytes())
    }

    #[tokio::test]
    async fn only_a_sender_that_finished_ends_its_body() {
        let whole = collect(|emit| {
            emit(Bytes::from_static(b"ab"));
            emit(Bytes::from_static(b"c"));
            Ok(())
        });
        assert_eq!(whole.await.expect("whole"), "abc");
        let failed = collect(|emit| {
            emit(Bytes::from_static(b"ab"));
            Err(StoreError::Lost { what: "the disk" })
        });
        assert!(failed.await.is_err());
        assert!(collect(|_| std::panic::resume_unwind(Box::new("gone"))).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_that_shrinks_while_it_is_sent_is_a_broken_body() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("p_aux"), [1; 63]).expect("written");
        let manifest: Manifest = [("p_aux".to_owned(), 64)].into_iter().collect();
        let path = dir.path().to_owned();
        assert!(collect(move |emit| archive::send(&path, &manifest, emit)).await.is_err());
    }
}
