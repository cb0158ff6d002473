//! Push streams, the receiving side: the endpoint through which a caller sends the bytes of a reader parameter.
//!
//! A call names a uuid; the caller asks `HEAD /rpc/streams/v0/push/{uuid}` and, told 200, sends the bytes by `POST` to
//! the same place. Call and requests may come in either order; each waits for the other for a bounded time. No token is
//! asked for: the uuid, which only the call's two ends know, is the secret. Bytes are never stored here, and never
//! asked for before the reader is first read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::head;
use futures_util::TryStreamExt as _;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;
use tokio_util::io::StreamReader;
use url::Url;
use uuid::Uuid;

/// How long a call and its requests wait for each other, as in Lotus.
const MATCH_WAIT: Duration = Duration::from_secs(30);
/// Streams open or awaited at once; beyond: refused. Each is one AddPiece or DataCid in progress.
const STREAMS_MAX: usize = 1024;
/// Ended streams that are remembered, so that a request that comes too late is answered at once.
const ENDED_MAX: usize = 1024;

/// The endpoint and the readers behind it. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct PushStreams {
    shared: Arc<Shared>,
}

impl PushStreams {
    /// With Lotus's waiting time of 30 s.
    pub fn new() -> Self {
        Self::with_wait(MATCH_WAIT)
    }

    /// With another waiting time.
    pub fn with_wait(wait: Duration) -> Self {
        Self { shared: Arc::new(Shared { wait, table: Mutex::new(Table::default()) }) }
    }

    /// The endpoint's routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/rpc/streams/v0/push/{id}", head(answer_head).post(answer_post))
            .with_state(self.clone())
    }

    /// The reader for the call that named `id`. Waits until the caller's first request for it is there.
    ///
    /// # Errors
    /// No request came in time, the id was claimed before, or too many streams are open.
    pub async fn claim(&self, id: Uuid) -> Result<PushReader, PushError> {
        let stream = self.shared.enter(id)?;
        let body = stream.body.lock().unwrap_or_else(PoisonError::into_inner).receiver.take();
        let body = body.ok_or(PushError::Claimed { id })?;
        stream.phase.send_replace(Phase::Unread);
        let reader = PushReader {
            id,
            stream: Arc::clone(&stream),
            shared: Arc::clone(&self.shared),
            source: Source::Unread { body },
        };
        let mut requests = stream.requested.subscribe();
        // The reader is already whole: dropped on the way out, it closes the stream.
        match tokio::time::timeout(self.shared.wait, requests.wait_for(|came| *came)).await {
            Ok(Ok(_)) => Ok(reader),
            _ => Err(PushError::NoSender { id, waited: self.shared.wait }),
        }
    }
}

impl Default for PushStreams {
    fn default() -> Self {
        Self::new()
    }
}

struct Shared {
    wait: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    streams: HashMap<Uuid, Arc<Stream>>,
    ended: VecDeque<Uuid>,
}

/// One stream, as both sides hold it.
struct Stream {
    /// Moved by the reader, awaited by the requests.
    phase: watch::Sender<Phase>,
    /// Whether a request came; set by the requests, awaited by the reader.
    requested: watch::Sender<bool>,
    body: Mutex<BodyChannel>,
}

struct BodyChannel {
    /// Taken by the POST.
    sender: Option<oneshot::Sender<Incoming>>,
    /// Taken by the reader.
    receiver: Option<oneshot::Receiver<Incoming>>,
}

/// What the POST hands to the reader.
struct Incoming {
    body: Body,
    /// Told when the body is read to its end or broke.
    finished: oneshot::Sender<Result<(), ()>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No call named it yet.
    Unclaimed,
    /// A call holds the reader and has not read.
    Unread,
    /// It is being read.
    Reading,
    /// The reader is gone without having read.
    ClosedUnread,
    /// The bytes are wanted elsewhere.
    Redirected(Url),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream with this id, made if there is none.
    fn enter(&self, id: Uuid) -> Result<Arc<Stream>, PushError> {
        let mut table = self.lock();
        if table.ended.contains(&id) {
            return Err(PushError::Claimed { id });
        }
        if let Some(stream) = table.streams.get(&id) {
            return Ok(Arc::clone(stream));
        }
        if table.streams.len() >= STREAMS_MAX {
            return Err(PushError::TooMany);
        }
        let (sender, receiver) = oneshot::channel();
        let stream = Arc::new(Stream {
            phase: watch::Sender::new(Phase::Unclaimed),
            requested: watch::Sender::new(false),
            body: Mutex::new(BodyChannel { sender: Some(sender), receiver: Some(receiver) }),
        });
        table.streams.insert(id, Arc::clone(&stream));
        Ok(stream)
    }

    /// The reader is gone.
    fn end(&self, id: Uuid) {
        let mut table = self.lock();
        table.streams.remove(&id);
        if table.ended.len() >= ENDED_MAX {
            table.ended.pop_front();
        }
        table.ended.push_back(id);
    }
}

/// A request's hold on a stream. When the last one goes and no call ever came, the stream goes with it.
struct Request {
    id: Uuid,
    stream: Arc<Stream>,
    shared: Arc<Shared>,
}

impl Request {
    fn enter(shared: &Arc<Shared>, id: Uuid) -> Result<Self, PushError> {
        let stream = shared.enter(id)?;
        stream.requested.send_replace(true);
        Ok(Self { id, stream, shared: Arc::clone(shared) })
    }

    /// Waits, within bounds, until a call named this stream.
    async fn claimed(&self) -> Result<(), StatusCode> {
        let mut phase = self.stream.phase.subscribe();
        match tokio::time::timeout(self.shared.wait, phase.wait_for(|phase| *phase != Phase::Unclaimed)).await
        {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut table = self.shared.lock();
        // Two holders besides other requests: the table and this one.
        let last = Arc::strong_count(&self.stream) <= 2;
        if last && *self.stream.phase.borrow() == Phase::Unclaimed {
            table.streams.remove(&self.id);
        }
    }
}

/// Whether to send: 200 yes, 204 nobody will read, 302 elsewhere, 500 nobody asked in time.
async fn answer_head(State(streams): State<PushStreams>, Path(id): Path<String>) -> Response {
    let Ok(id) = Uuid::try_parse(&id) else { return StatusCode::BAD_REQUEST.into_response() };
    let request = match Request::enter(&streams.shared, id) {
        Ok(request) => request,
        Err(PushError::Claimed { .. }) => return StatusCode::NO_CONTENT.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    if let Err(status) = request.claimed().await {
        return status.into_response();
    }
    // No bound here: a worker may take the task long before it reads. The caller's hanging up ends the wait.
    let mut phase = request.stream.phase.subscribe();
    let decided = phase.wait_for(|phase| !matches!(phase, Phase::Unclaimed | Phase::Unread)).await;
    match decided.as_deref() {
        Ok(Phase::Reading) => StatusCode::OK.into_response(),
        Ok(Phase::ClosedUnread) => StatusCode::NO_CONTENT.into_response(),
        Ok(Phase::Redirected(to)) => redirect(to),
        Ok(Phase::Unclaimed | Phase::Unread) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Takes the bytes: 200 when they were read to the end or are no longer wanted. Also without a HEAD before.
async fn answer_post(State(streams): State<PushStreams>, Path(id): Path<String>, body: Body) -> Response {
    let Ok(id) = Uuid::try_parse(&id) else { return StatusCode::BAD_REQUEST.into_response() };
    let request = match Request::enter(&streams.shared, id) {
        Ok(request) => request,
        Err(PushError::Claimed { .. }) => return StatusCode::OK.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    if let Err(status) = request.claimed().await {
        return status.into_response();
    }
    if let Phase::Redirected(to) = &*request.stream.phase.borrow() {
        return redirect(to);
    }
    let sender = request.stream.body.lock().unwrap_or_else(PoisonError::into_inner).sender.take();
    let Some(sender) = sender else { return StatusCode::CONFLICT.into_response() };
    let (finished, outcome) = oneshot::channel();
    if sender.send(Incoming { body, finished }).is_err() {
        return StatusCode::OK.into_response();
    }
    match outcome.await {
        Ok(Err(())) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        // A reader that is dropped early says nothing: it was closed.
        Ok(Ok(())) | Err(_) => StatusCode::OK.into_response(),
    }
}

fn redirect(to: &Url) -> Response {
    let location: [(HeaderName, &str); 1] = [(header::LOCATION, to.as_str())];
    (StatusCode::FOUND, location).into_response()
}

/// The bytes of one reader parameter. The caller sends them once it is first read; dropped unread, they are never sent.
pub struct PushReader {
    id: Uuid,
    stream: Arc<Stream>,
    shared: Arc<Shared>,
    source: Source,
}

enum Source {
    Unread {
        body: oneshot::Receiver<Incoming>,
    },
    /// Read for the first time; the caller may send for this long before it is given up.
    Awaited {
        body: oneshot::Receiver<Incoming>,
        deadline: Pin<Box<Sleep>>,
    },
    Open {
        bytes: Pin<Box<dyn AsyncRead + Send>>,
        finished: Option<oneshot::Sender<Result<(), ()>>>,
    },
}

impl PushReader {
    /// Sends the caller elsewhere with its bytes, for example to the worker that will read them. Once it was read, a
    /// reader cannot be redirected; that is a mistake of the calling code and closes the stream.
    pub fn redirect(self, to: Url) {
        if matches!(self.source, Source::Unread { .. }) {
            self.stream.phase.send_replace(Phase::Redirected(to));
        }
    }
}

impl AsyncRead for PushReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.source {
                Source::Unread { body } => {
                    let body = std::mem::replace(body, oneshot::channel().1);
                    this.stream.phase.send_replace(Phase::Reading);
                    let deadline = Box::pin(tokio::time::sleep(this.shared.wait));
                    this.source = Source::Awaited { body, deadline };
                }
                Source::Awaited { body, deadline } => match Pin::new(body).poll(cx) {
                    Poll::Ready(Ok(Incoming { body, finished })) => {
                        let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
                        this.source = Source::Open { bytes: Box::pin(bytes), finished: Some(finished) };
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Poll::Pending => {
                        ready!(deadline.as_mut().poll(cx));
                        let late = format!("the bytes of push stream {} did not come", this.id);
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
                    }
                },
                Source::Open { bytes, finished } => {
                    let (before, room) = (buf.filled().len(), buf.remaining());
                    let outcome = ready!(bytes.as_mut().poll_read(cx, buf));
                    let at_end = room > 0 && buf.filled().len() == before;
                    if (outcome.is_err() || at_end)
                        && let Some(finished) = finished.take()
                    {
                        // Nobody listens when the caller hung up, which is no matter then.
                        let _ = finished.send(if outcome.is_ok() { Ok(()) } else { Err(()) });
                    }
                    return Poll::Ready(outcome);
                }
            }
        }
    }
}

impl Drop for PushReader {
    fn drop(&mut self) {
        self.stream.phase.send_if_modified(|phase| {
            let unread = *phase == Phase::Unread;
            if unread {
                *phase = Phase::ClosedUnread;
            }
            unread
        });
        self.shared.end(self.id);
    }
}

/// A stream that cannot be claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The caller never asked.
    #[error("nobody sent push stream {id} within {waited:?}; the caller must be able to reach this address")]
    NoSender {
        /// The stream.
        id: Uuid,
        /// How long we waited.
        waited: Duration,
    },
    /// Named by two calls.
    #[error("push stream {id} was used before; each call needs an id of its own")]
    Claimed {
        /// The stream.
        id: Uuid,
    },
    /// The bound is reached.
    #[error("1024 push streams are open; try again when some have ended")]
    TooMany,
}
