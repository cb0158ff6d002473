//! One connection to a Sealyard, blocking: a request, the head of its answer, then the body straight into a buffer.
//!
//! HTTP is spoken on the socket itself, or on TLS over it, since a client library copies every byte once more. What it
//! understands is what our own server answers: a status line, few headers, a body of known length.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use url::Url;

use super::blocks::Feed;
use crate::error::StoreError;
use crate::peer::{self, ANSWER_MAX, CONNECT_MAX, SILENCE_MAX, SLOWEST_TIME};

/// An answer's head is at most this long (bytes).
const HEAD_MAX: usize = 16 << 10;

/// Ends the waits of all connections of one fetch.
#[derive(Clone, Default)]
pub(super) struct Cancel(Arc<Cancelled>);

#[derive(Default)]
struct Cancelled {
    called: AtomicBool,
    /// Those that are still used.
    sockets: Mutex<Vec<Weak<TcpStream>>>,
}

impl Cancel {
    pub(super) fn call(&self) {
        self.0.called.store(true, Ordering::SeqCst);
        for socket in self.sockets().drain(..).filter_map(|socket| socket.upgrade()) {
            // Closed already, or never open: the reader finds out either way.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_called(&self) -> bool {
        self.0.called.load(Ordering::SeqCst)
    }

    fn watch(&self, socket: &Arc<TcpStream>) -> io::Result<()> {
        let mut sockets = self.sockets();
        sockets.retain(|known| known.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
        drop(sockets);
        if self.is_called() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn sockets(&self) -> std::sync::MutexGuard<'_, Vec<Weak<TcpStream>>> {
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels when dropped: the caller that waited for the fetch has gone.
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.call();
    }
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) media: String,
    pub(super) length: u64,
}

/// A connection that is opened when it is needed and used again while it can be.
pub(super) struct Wire {
    url: String,
    address: String,
    /// For TLS: whose certificate is to be shown, and which are believed.
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    target: String,
    token: String,
    cancel: Cancel,
    socket: Option<Socket>,
    /// Of the body, read together with its head.
    early: Vec<u8>,
    /// Of the body, to come.
    left: u64,
}

/// Whether a URL can be fetched from in blocks.
pub(super) fn speaks(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// A socket that [`Cancel`] knows as long as it is used.
struct Line(Arc<TcpStream>);

impl Line {
    /// Fills all of `into`, but for the end of the stream or of the socket's time: the thread sleeps until most of it is here,
    /// instead of being woken by every few packets.
    fn read_most(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0.as_raw_fd(), into, MsgFlags::MSG_WAITALL)?)
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(into)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

/// One connection, plain or TLS.
enum Socket {
    Plain(Line),
    Tls(Box<StreamOwned<ClientConnection, Line>>),
}

/// Of which large bodies are read.
trait Body {
    /// As [`Read::read`], waiting for all of `into` where that is cheaper.
    fn read_most(&mut self, into: &mut [u8]) -> io::Result<usize>;
}

impl Body for Socket {
    fn read_most(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read_most(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Wire {
    pub(super) fn new(feed: &Feed) -> Result<Self, StoreError> {
        let Feed { url, token, cancel, tls, .. } = feed;
        let bad = || StoreError::Url { url: url.to_owned() };
        let parsed = Url::parse(url).map_err(|_| bad())?;
        let host = parsed.host_str().ok_or_else(bad)?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => {
                let name =
                    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| bad())?;
                Some((name, tls.clone()))
            }
            _ => return Err(bad()),
        };
        let port = parsed.port_or_known_default().ok_or_else(bad)?;
        let query = parsed.query().map(|query| format!("?{query}")).unwrap_or_default();
        if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(bad());
        }
        Ok(Self {
            url: url.clone(),
            address: format!("{host}:{port}"),
            tls,
            target: format!("{}{query}", parsed.path()),
            token: token.clone(),
            cancel: cancel.clone(),
            socket: None,
            early: Vec::new(),
            left: 0,
        })
    }

    /// Asks and waits for the head of the answer.
    pub(super) fn ask(&mut self, headers: &[(&str, &str)]) -> Result<Head, StoreError> {
        if self.left > 0 {
            self.socket = None;
        }
        let reused = self.socket.is_some();
        match self.try_ask(headers) {
            // The peer may have closed a connection that had been idle.
            Err(error) if reused && !self.cancel.is_called() => {
                tracing::debug!(url = self.url, %error, "connecting again");
                self.socket = None;
                self.try_ask(headers)
            }
            asked => asked,
        }
        .map_err(|error| {
            self.socket = None;
            peer::broken(&self.url, error)
        })
    }

    /// Fills all of `into` with the body.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), StoreError> {
        let read = self.try_read(into);
        read.map_err(|error| {
            self.socket = None;
            peer::broken(&self.url, error)
        })
    }

    /// The rest of a short body, for an error's text.
    pub(super) fn rest(&mut self, bytes_max: usize) -> String {
        let length = usize::try_from(self.left).unwrap_or(bytes_max).min(bytes_max);
        let mut text = vec![0; length];
        let read = self.try_read(&mut text);
        if read.is_ok() { String::from_utf8_lossy(&text).trim().to_owned() } else { String::new() }
    }

    fn try_ask(&mut self, headers: &[(&str, &str)]) -> io::Result<Head> {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n",
            self.target, self.address, self.token
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        socket.write_all(request.as_bytes())?;
        socket.flush()?;
        let (head, early) = read_head(&mut socket, Instant::now() + ANSWER_MAX)?;
        self.left = head.length;
        self.early = early;
        self.early.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.socket = Some(socket);
        Ok(head)
    }

    fn connect(&self) -> io::Result<Socket> {
        let mut socket = self.dial()?;
        let Some((name, config)) = &self.tls else { return Ok(Socket::Plain(socket)) };
        let mut connection = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        // Now, so that nothing is said to a peer that is not believed.
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Socket::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    fn dial(&self) -> io::Result<Line> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(SILENCE_MAX))?;
                    socket.set_write_timeout(Some(SILENCE_MAX))?;
                    let socket = Arc::new(socket);
                    self.cancel.watch(&socket)?;
                    return Ok(Line(socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_read(&mut self, into: &mut [u8]) -> io::Result<()> {
        if into.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the body is shorter than it should be"));
        }
        let from_head = self.early.len().min(into.len());
        into[..from_head].copy_from_slice(&self.early[..from_head]);
        self.early.drain(..from_head);
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        fill(socket, &mut into[from_head..], Instant::now() + SLOWEST_TIME)?;
        self.left -= into.len() as u64;
        Ok(())
    }
}

/// Fills all of `into` before `deadline`, however little each read brings.
fn fill(socket: &mut impl Body, into: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match socket.read_most(&mut into[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if done < into.len() && Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Reads up to the empty line, before `deadline`; what came beyond it belongs to the body.
fn read_head(socket: &mut impl Read, deadline: Instant) -> io::Result<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let end = loop {
        let got = match socket.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend(&part[..got]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() > HEAD_MAX {
            return Err(bad("an answer's head is too long"));
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    };
    let early = bytes.split_off(end + 4);
    Ok((parse_head(&bytes[..end])?, early))
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("an answer's head is no text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3));
    let status =
        status.and_then(|digits| digits.parse().ok()).ok_or_else(|| bad("an answer has no status"))?;
    let (mut media, mut length) = (String::new(), None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header has no colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let number = value.parse().map_err(|_| bad("a content length is no number"))?;
            if length.replace(number).is_some_and(|earlier| earlier != number) {
                return Err(bad("an answer has two lengths"));
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            value.clone_into(&mut media);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a body without a length"));
        }
    }
    let length = length.ok_or_else(|| bad("a body without a length"))?;
    Ok(Head { status, media, length })
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_no_longer_used_is_not_kept_open() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/remote", listener.local_addr().expect("an address"));
        let cancel = Cancel::default();
        let wire = Wire {
            address: url.trim_start_matches("http://").trim_end_matches("/remote").to_owned(),
            url,
            tls: None,
            target: String::new(),
            token: String::new(),
            cancel: cancel.clone(),
            socket: None,
            early: Vec::new(),
            left: 0,
        };
        for _ in 0..9 {
            drop(wire.connect().expect("it listens"));
        }
        let mut used = wire.connect().expect("it listens");
        assert_eq!(cancel.sockets().len(), 1);
        cancel.call();
        assert_eq!(used.read(&mut [0]).expect("shut down"), 0);
        assert!(wire.connect().is_err(), "none is opened any more");
    }

    #[test]
    fn heads_that_leave_a_length_open_are_refused() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\ncontent-type: a/b\r\n\r\nabc";
        let late = Instant::now() + ANSWER_MAX;
        let (head, early) = read_head(&mut &whole[..], late).expect("a head");
        assert_eq!((head.status, &*head.media, head.length, &*early), (200, "a/b", 3, &b"abc"[..]));
        for (bytes, why) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "without a length"),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
                "without a length",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "two lengths"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "no number"),
            ("HTTP/1.1 2\r\n\r\n", "no status"),
            ("HTTP/1.1 200 OK\r\nx\r\n\r\n", "no colon"),
            ("HTTP/1.1 200 OK\r\n", "unexpected end"),
        ] {
            let error = read_head(&mut bytes.as_bytes(), late).err().expect(why).to_string();
            assert!(error.contains(why), "{bytes:?}: {error}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 * HEAD_MAX));
        assert!(read_head(&mut long.as_bytes(), late).is_err());
    }

    /// Brings one byte at a time.
    struct Drip;

    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            into[0] = b'x';
            Ok(1)
        }
    }

    impl Body for Drip {
        fn read_most(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.read(into)
        }
    }

    #[test]
    fn a_peer_that_brings_next_to_nothing_is_given_up() {
        let past = Instant::now();
        let kind = |done: io::Result<()>| done.err().map(|error| error.kind());
        assert_eq!(kind(fill(&mut Drip, &mut [0; 9], past)), Some(io::ErrorKind::TimedOut));
        assert_eq!(kind(fill(&mut Drip, &mut [0; 1], past)), None, "all of it is there");
        let head = read_head(&mut Drip, past).map(drop);
        assert_eq!(kind(head), Some(io::ErrorKind::TimedOut));
    }
}
