//! One file or directory from one URL into its arriving place: in verified blocks from a Sealyard, else as it comes.
//!
//! A peer is asked for the list of blocks; one that does not know the question answers with the file itself, which is then
//! taken. On success everything is whole and durable, and noted as arrived; the caller puts it in place.

pub(crate) mod arriving;
mod blocks;
mod journal;
mod length;
mod plain;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use sealtasks::{FileType, SectorRef};

use crate::content::{ACCEPT_HEADER, CONTENT_TYPE_LIST, Content};
use crate::crash::crash_point;
use crate::error::StoreError;
use crate::peer::Peer;
use crate::traffic::{Progress, Traffic};
use arriving::{Arrived, Arriving};
use blocks::Feed;
use wire::{Cancel, CancelOnDrop};

/// A source that changes under its fetch is begun anew so often.
const CHANGES_MAX: usize = 3;

/// Counts the bytes of bodies as they are received. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct TransferMeter(Arc<AtomicU64>);

impl TransferMeter {
    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What is fetched to where.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) sector: SectorRef,
    pub(crate) kind: FileType,
    /// The storage path it goes to.
    pub(crate) path: PathBuf,
    /// Whether the source is to be deleted afterwards.
    pub(crate) moves: bool,
    /// It is a rehearsal's: what the source says to be empty is taken for empty.
    pub(crate) rehearses: bool,
}

/// Who fetches, and under which limits.
pub(crate) struct Fetcher {
    pub(crate) peer: Peer,
    pub(crate) traffic: Traffic,
}

/// Where a file is fetched from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The storage path there.
    pub(crate) holder: &'a str,
    /// The file's URL.
    pub(crate) url: &'a str,
    /// What opens it.
    pub(crate) token: &'a str,
}

impl Fetcher {
    /// Fetches from one URL into `place`. What came of a fetch that broke off stays there for the next one; whatever can
    /// never become whole is taken away.
    pub(crate) async fn fetch(
        &self,
        origin: Origin<'_>,
        target: &Target,
        place: &Arc<Arriving>,
        meter: &TransferMeter,
        progress: &Progress,
    ) -> Result<Arrived, StoreError> {
        let Origin { holder, url, token } = origin;
        let feed = Feed {
            holder: holder.to_owned(),
            url: url.to_owned(),
            token: token.to_owned(),
            traffic: self.traffic.clone(),
            progress: progress.clone(),
            meter: meter.clone(),
            cancel: Cancel::default(),
            tls: self.peer.tls().clone(),
        };
        let mut changes = 0;
        let (files, etag) = loop {
            match self.fetch_once(&feed, target, place).await {
                Err(StoreError::Changed { .. }) if changes < CHANGES_MAX => {
                    changes += 1;
                    tracing::warn!(url, "the source changed meanwhile; its fetch begins anew");
                }
                fetched => break fetched?,
            }
        };
        let (holder, url) = (holder.to_owned(), url.to_owned());
        let arrived = Arrived { holder, url, files, etag, moves: target.moves, declared: false };
        let (noted, place, target) = (arrived.clone(), place.clone(), target.clone());
        on_thread(move || {
            if target.kind == FileType::Unsealed {
                let bytes = noted.files.first().map_or(0, |(_, bytes)| *bytes);
                length::check_trailer(&place.data(), &target, bytes)?;
            }
            place.set_arrived(&noted)
        })
        .await?;
        crash_point("worker.fetch.arrived");
        Ok(arrived)
    }

    async fn fetch_once(
        &self,
        feed: &Feed,
        target: &Target,
        place: &Arc<Arriving>,
    ) -> Result<Fetched, StoreError> {
        let url = &feed.url;
        let accept = (HeaderName::from_static(ACCEPT_HEADER), HeaderValue::from_static("1"));
        let answer =
            self.peer.ask(Method::GET, url, &feed.token, Some(accept).filter(|_| wire::speaks(url))).await?;
        let answer = Peer::expect(url, answer, StatusCode::OK).await?;
        if !is_list(&answer) {
            let files = plain::fetch(answer, feed, place.clone(), target.clone()).await?;
            return Ok((files, None));
        }
        let content = Content::parse(&Peer::small_body(url, answer).await?, target.kind.is_directory())?;
        if !target.kind.is_directory() {
            length::check_length(target, content.bytes())?;
        }
        let feed = Feed { cancel: Cancel::default(), ..feed.clone() };
        let _cancel = CancelOnDrop(feed.cancel.clone());
        let (place, target) = (place.clone(), target.clone());
        on_thread(move || {
            blocks::receive(&feed, &content, &place, &target).map(|()| (content.files, Some(content.etag)))
        })
        .await
    }
}

/// Names and lengths of what came, and the state of the source that it is a copy of, where the source told one.
type Fetched = (Vec<(String, u64)>, Option<String>);

fn is_list(answer: &Response<Incoming>) -> bool {
    answer.headers().get(CONTENT_TYPE).is_some_and(|media| media == CONTENT_TYPE_LIST)
}

/// Runs on a thread that may block.
pub(crate) async fn on_thread<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "writing a fetched file" }))
}
