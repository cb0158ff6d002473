//! HTTP/1.1 by hand, one thread per connection: enough to pass for Go's client and server. Never: TLS, pipelining.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// No single read or write may take longer; long polls (a push stream's HEAD) are answered within half of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest head, in bytes.
const HEAD_MAX: u64 = 64 << 10;
/// Longest body, in bytes; 2 KiB sectors need far less.
const BODY_MAX: usize = 64 << 20;

type Headers = Vec<(String, String)>;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A query's value, not decoded: ids and tokens need no decoding.
    pub fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.target.split_once('?')?.1.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// An answer as it came or goes.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Sent in chunks without a length, as Go does when it does not know it.
    pub chunked: bool,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self { status, headers, body, chunked: false }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A listening server; it stops listening when dropped.
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// A free port of loopback.
    pub fn bind() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a free port")
    }

    pub fn serve<H>(listener: TcpListener, handler: H) -> Self
    where
        H: Fn(Request) -> Answer + Send + Sync + 'static,
    {
        let address = listener.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handler) = (Arc::clone(&stop), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), handler) = (stream, Arc::clone(&handler)) else { continue };
                std::thread::spawn(move || converse(&stream, &*handler));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the loop; that nobody may be there is no matter.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers requests of one connection until it ends. A peer that breaks off is its own affair.
fn converse(stream: &TcpStream, handler: &dyn Fn(Request) -> Answer) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Ok(Some((start, headers))) = read_head(&mut reader) {
        let mut words = start.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
        let (method, target) = (method.to_owned(), target.to_owned());
        let Ok(body) = read_body(&mut reader, &headers, Ending::None) else { return };
        let last = find(&headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let with_body = method != "HEAD";
        let answer = handler(Request { method, target, headers, body });
        if write_answer(stream, &answer, with_body).is_err() || last {
            return;
        }
    }
}

/// Where a body without a length ends.
#[derive(Clone, Copy)]
enum Ending {
    /// There is none.
    None,
    /// With the connection.
    Close,
}

fn bad(text: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, text.to_owned())
}

/// The start line and the headers; `None` at the connection's end.
fn read_head(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<(String, Headers)>> {
    let mut start = String::new();
    let mut headers = Vec::new();
    let mut head = reader.take(HEAD_MAX);
    if head.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("the head ends too soon"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some((start.trim_end().to_owned(), headers)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_body(
    reader: &mut BufReader<&TcpStream>,
    headers: &Headers,
    ending: Ending,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if find(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let digits = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(|_| bad("a chunk's size"))?;
            if size > BODY_MAX - body.len() {
                return Err(bad("the body is too long"));
            }
            let begin = body.len();
            body.resize(begin + size, 0);
            reader.read_exact(&mut body[begin..])?;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match (find(headers, "content-length"), ending) {
        (Some(length), _) => {
            let length = length.parse::<usize>().map_err(|_| bad("Content-Length"))?;
            if length > BODY_MAX {
                return Err(bad("the body is too long"));
            }
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        (None, Ending::Close) => {
            reader.take(BODY_MAX as u64).read_to_end(&mut body)?;
        }
        (None, Ending::None) => {}
    }
    Ok(body)
}

fn write_answer(mut stream: &TcpStream, answer: &Answer, with_body: bool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    } else {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    }
    stream.write_all(head.as_bytes())?;
    match (with_body, answer.chunked) {
        (false, _) => {}
        (true, false) => stream.write_all(&answer.body)?,
        (true, true) => write_chunks(stream, &answer.body)?,
    }
    stream.flush()
}

/// Small chunks, so that a reader that takes a chunk for the whole is found out.
fn write_chunks(mut stream: &TcpStream, body: &[u8]) -> std::io::Result<()> {
    for chunk in body.chunks(1000) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Status",
    }
}

/// What a request carries.
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// In chunks, as Go sends a reader.
    Chunked(&'a [u8]),
}

/// One request on a connection of its own.
///
/// # Errors
/// Nobody listens, or the answer is none.
pub fn send(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    payload: Payload<'_>,
) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match payload {
        Payload::None => head.push_str("\r\n"),
        Payload::Bytes(bytes) => head.push_str(&format!("Content-Length: {}\r\n\r\n", bytes.len())),
        Payload::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    (&stream).write_all(head.as_bytes())?;
    // A server may answer without having read the body, and close: what it says counts.
    let sent = match payload {
        Payload::None => Ok(()),
        Payload::Bytes(bytes) => (&stream).write_all(bytes),
        Payload::Chunked(bytes) => write_chunks(&stream, bytes),
    };
    let mut reader = BufReader::new(&stream);
    let Some((start, headers)) = read_head(&mut reader)? else {
        sent?;
        return Err(bad("no answer"));
    };
    let status =
        start.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| bad("no status"))?;
    let bodiless = method == "HEAD" || matches!(status, 204 | 304);
    let body = if bodiless { Vec::new() } else { read_body(&mut reader, &headers, Ending::Close)? };
    Ok(Answer { status, headers, body, chunked: false })
}
