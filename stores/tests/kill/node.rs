//! A node with one storage path: it hands files out, and moves them here when it is asked to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use sealtasks::{AcquireMode, FileTypes, PathType};
use stores::{FetchOptions, Local, LocalOptions, Looking, Remote, TransferMeter, fetch_router};

use super::index::Far;
use super::support::{Tokens, sector};

/// How often a node looks whether the index is another one.
const SESSION_CHECK: Duration = Duration::from_millis(50);

pub fn serve(_name: &str, dir: &Path, port: &str, index: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(dir, port, index));
}

async fn run(dir: &Path, port: &str, index: &str) {
    let far = Arc::new(Far::new(index));
    let address = format!("127.0.0.1:{port}");
    let mut beat = tokio::time::interval(SESSION_CHECK);
    let mut session = loop {
        beat.tick().await;
        if let Some(session) = far.session().await {
            break session;
        }
    };
    let options = LocalOptions {
        config: dir.join("storage.json"),
        urls: vec![format!("http://{address}/remote")],
        index: far.clone(),
    };
    // The index may be killed at this very moment; a node that cannot begin is begun again.
    let Ok((local, _)) = Local::open(options).await else { return again() };
    if local.paths().is_empty() && local.attach_path(&dir.join("path")).await.is_err() {
        return again();
    }
    let fetch = FetchOptions { token: "admin-token".to_owned(), parallel: 2 };
    let remote = Arc::new(Remote::new(local.clone(), far.clone(), fetch));
    let state: Wish = (remote, Arc::default(), TransferMeter::default());
    let moves = Router::new().route("/move", get(wish)).with_state(state);
    let looking = Looking::with_one_token("admin-token".to_owned());
    let router = moves.merge(fetch_router(local.clone(), Arc::new(Tokens), looking, None));
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the port");
    tokio::spawn(async move { axum::serve(listener, router).await });
    loop {
        beat.tick().await;
        if let Some(now) = far.session().await
            && now != session
            && local.redeclare(None, false).await.is_ok()
        {
            session = now;
        }
    }
}

/// The same program again in this process's place.
fn again() {
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(std::env::args().skip(1)),
    );
    panic!("cannot begin again: {error}");
}

type Wish = (Arc<Remote>, Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>, TransferMeter);

/// Begins the move unless it runs; the bytes that have come to this process so far.
async fn wish(State((remote, running, meter)): State<Wish>) -> String {
    let mut running = running.lock().expect("the wish");
    let bytes = meter.bytes();
    if running.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
        *running = Some(tokio::spawn(async move {
            let (types, none) = (FileTypes::CACHE, FileTypes::NONE);
            let move_here = AcquireMode::Move;
            let path = PathType::Sealing;
            if let Err(error) = remote.acquire(sector(1), types, none, path, move_here, &meter).await {
                eprintln!("a move broke off: {error}");
            }
        }));
    }
    bytes.to_string()
}

/// Bytes received by all lives of a node.
#[derive(Default)]
pub struct Sent {
    earlier: u64,
    now: u64,
}

impl Sent {
    pub fn bytes(&self) -> u64 {
        self.earlier + self.now
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    There,
    Away,
}

/// Asks a node to go on with the move.
pub fn move_here(port: u16, sent: &mut Sent) -> Answer {
    let ask = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
        socket.write_all(b"GET /move HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        text.rsplit("\r\n").next()?.trim().parse::<u64>().ok()
    };
    match ask() {
        Some(bytes) => {
            // A node that was killed counts from nothing.
            if bytes < sent.now {
                sent.earlier += sent.now;
            }
            sent.now = bytes;
            Answer::There
        }
        None => Answer::Away,
    }
}
