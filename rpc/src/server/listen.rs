//! The door itself: takes connections, plain or TLS, and serves a router on each, with a bound on everything that a
//! stranger could hold: connections, the time of a handshake, a head, a body, and of an answer that nobody reads. Whoever
//! is turned away is told why where HTTP can still be spoken. Never looks into a request.

mod guests;
mod pace;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::tls::Identity;
use guests::{Guests, Seat};
use pace::{Paced, Patient};

/// What strangers may hold of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once. Beyond: HTTP 503.
    pub connections: usize,
    /// Connections at once from one address (one /64 of IPv6). Beyond: HTTP 503. Each waiting call of a Lotus peer is one.
    pub from_one_address: usize,
    /// A TLS handshake ends within this time.
    pub handshake: Duration,
    /// A request's head is whole within this time, counted from the connection's begin or the answer before; so long may
    /// a connection idle. Longer than clients keep idle connections (Go's and ours: 90 s), or they would lose races.
    pub head: Duration,
    /// A body may let us wait so long altogether, and a second more for each [`Bounds::body_rate`] bytes that came.
    pub body: Duration,
    /// Bytes per second; see [`Bounds::body`].
    pub body_rate: u64,
    /// A peer that takes nothing of an answer for so long is given up on.
    pub stall: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: super::CONNECTIONS_MAX as usize,
            from_one_address: 2000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(100),
            body: Duration::from_secs(60),
            body_rate: 1024,
            stall: Duration::from_secs(120),
        }
    }
}

impl Bounds {
    /// The usual bounds, but that connections take at most half of the files that this process may open: its disks need
    /// the others.
    pub fn of_this_process() -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let half = usize::try_from(files / 2).unwrap_or(usize::MAX);
        let usual = Self::default();
        Self {
            connections: usual.connections.min(half),
            from_one_address: usual.from_one_address.min(half.div_ceil(2)),
            ..usual
        }
    }
}

/// A request's head is at most so long (bytes), give or take a read of the socket, and has at most 100 headers. Beyond:
/// HTTP 431.
pub const HEAD_SIZE_MAX: usize = 128 << 10;

/// Certificate files are looked at this often.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// After a refusal by the operating system to take another connection: too many open files, mostly.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// The first byte of a TLS handshake; no HTTP request begins with it.
const HANDSHAKE: u8 = 0x16;
/// Of a plain request that is turned away, so much is read (bytes), that the answer arrives.
const UNREAD_MAX: u64 = 64 << 10;

/// Serves `router` until this is dropped; connections that are open then live on. With an identity only TLS is spoken,
/// and new certificate files hold within some seconds.
///
/// # Errors
/// The listener's socket cannot be set up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Identity>,
    bounds: Bounds,
) -> io::Result<()> {
    keep_alive(&listener)?;
    let acceptor = tls.as_ref().map(|identity| TlsAcceptor::from(identity.config()));
    let guests = Guests::new(bounds.connections, bounds.from_one_address);
    let mut look = tokio::time::interval(REFRESH_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                if let Some(identity) = tls.clone() {
                    tokio::task::spawn_blocking(move || refresh(&identity));
                }
                continue;
            }
        };
        match accepted {
            Ok((socket, from)) => match guests.admit(from.ip()) {
                Some(seat) => {
                    let visit = Visit { from, bounds, seat };
                    tokio::spawn(visit.attend(socket, router.clone(), acceptor.clone()));
                }
                None => turn_away(&socket, from, acceptor.is_some()),
            },
            Err(error) if is_the_peers(&error) => tracing::debug!(%error, "a connection was gone at once"),
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken now");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// As Go's listeners do: a peer whose machine died is noticed although nothing is ever sent to it. Accepted sockets
/// inherit this.
fn keep_alive(listener: &TcpListener) -> io::Result<()> {
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &15)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &15)?;
    Ok(())
}

fn refresh(identity: &Identity) {
    match identity.refresh() {
        Ok(true) => tracing::info!("the new certificate is in force"),
        Ok(false) => {}
        Err(error) => {
            let error = crate::error::chain(&error);
            tracing::error!(
                error,
                "the changed certificate files are not used; the old certificate is still shown"
            );
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn refusal(status: &str, text: &str) -> String {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}\n"
    )
}

/// Without waiting: whoever opens too many connections must not cost a task each.
fn turn_away(socket: &TcpStream, from: SocketAddr, tls: bool) {
    tracing::warn!(%from, "too many connections; one is turned away");
    if !tls {
        let text = "RPC010: too many connections to this port, or too many from your address; close some";
        // A fresh socket takes these few bytes, or the peer is gone.
        let _ = socket.try_write(refusal("503 Service Unavailable", text).as_bytes());
    }
}

/// One connection.
struct Visit {
    from: SocketAddr,
    bounds: Bounds,
    /// Given back when the connection ends, whatever it was.
    seat: Seat,
}

impl Visit {
    async fn attend(self, socket: TcpStream, router: Router, acceptor: Option<TlsAcceptor>) {
        let from = self.from;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection was gone at once");
            return;
        }
        let Some(acceptor) = acceptor else { return self.converse(socket, router).await };
        match timeout(self.bounds.handshake, shake_hands(socket, acceptor)).await {
            Ok(Ok(Some(stream))) => self.converse(stream, router).await,
            Ok(Ok(None)) => tracing::debug!(%from, "plain HTTP is not spoken here"),
            Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS came about"),
            Err(_) => tracing::debug!(%from, "a TLS handshake took too long"),
        }
    }

    async fn converse(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
        let Self { from, bounds, seat } = self;
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(|body| Paced::new(body, bounds)))
        });
        // The seat goes with the stream: a websocket outlives what serves its first request.
        let io = TokioIo::new(Patient::new(io, bounds.stall, seat));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(HEAD_SIZE_MAX)
            .serve_connection(io, service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(%from, error = crate::error::chain(&error), "a connection ended badly");
        }
    }
}

/// `None` after a word to a peer that speaks plain HTTP.
async fn shake_hands(
    mut socket: TcpStream,
    acceptor: TlsAcceptor,
) -> io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 || first == [HANDSHAKE] {
        return acceptor.accept(socket).await.map(Some);
    }
    let text = "TLS10: this port speaks TLS: write https:// or wss:// instead of http:// or ws://";
    socket.write_all(refusal("400 Bad Request", text).as_bytes()).await?;
    socket.shutdown().await?;
    tokio::io::copy(&mut (&mut socket).take(UNREAD_MAX), &mut tokio::io::sink()).await?;
    Ok(None)
}
