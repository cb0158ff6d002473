//! Peers that take their time: bodies that hardly come and answers that nobody reads. Only waiting counts: a body that we
//! do not ask for, because its reader is slow, is never too slow.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Bounds;
use super::guests::Seat;

/// A request's body that breaks when it lets us wait too long.
pub(super) struct Paced<B = Incoming> {
    body: B,
    bounds: Bounds,
    came: u64,
    /// In all waits that are over.
    waited: Duration,
    /// Since when we wait now, and when that is too long.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    pub(super) const fn new(body: B, bounds: Bounds) -> Self {
        Self { body, bounds, came: 0, waited: Duration::ZERO, waiting: None }
    }

    /// How much longer we wait for the next bytes.
    fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.came / self.bounds.body_rate.max(1));
        (self.bounds.body + earned).saturating_sub(self.waited)
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = PaceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PaceError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                if let Some((since, _)) = this.waiting.take() {
                    this.waited += since.elapsed();
                }
                if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                    this.came += data.map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|source| PaceError::Broken { source })))
            }
            Poll::Pending => {
                let patience = this.patience();
                let (_, over) = this
                    .waiting
                    .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(patience))));
                match over.as_mut().poll(context) {
                    Poll::Ready(()) => {
                        tracing::warn!(
                            bytes = this.came,
                            "a request's body comes too slowly; it is given up"
                        );
                        Poll::Ready(Some(Err(PaceError::Slow { bytes: this.came })))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum PaceError {
    /// The connection broke.
    #[error("the request's body broke off")]
    Broken {
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It comes so slowly that only an attacker sends so.
    #[error("RPC011: the request's body comes too slowly; {bytes} bytes came")]
    Slow {
        /// What came of it.
        bytes: u64,
    },
}

/// A stream that fails when its peer takes nothing for too long, and holds its seat as long as it is open.
pub(super) struct Patient<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    _seat: Seat,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S, limit: Duration, seat: Seat) -> Self {
        Self { stream, limit, stalled: None, _seat: seat }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, taken: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.stalled = None;
            return taken;
        }
        let limit = self.limit;
        let over = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match over.as_mut().poll(context) {
            Poll::Ready(()) => {
                let text = format!("the peer took nothing for {} s", limit.as_secs());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, closed)
    }
}
