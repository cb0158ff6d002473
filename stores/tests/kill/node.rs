//! A node with one storage path: it hands files out, and moves them here when it is asked to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Given;
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
    let moves: Wish = (remote, Arc::default(), TransferMeter::default());
    let moves = Router::new().route("/move", get(wish)).route("/state", get(state)).with_state(moves);
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

/// Begins the move unless it runs, and tells how far it is.
async fn wish(Given(wish): Given<Wish>) -> String {
    let (remote, running, meter) = wish.clone();
    {
        let mut running = running.lock().expect("the wish");
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
    }
    state(Given(wish)).await
}

/// The bytes that have come to this process so far, on how many connections at once they come, and whether a move runs.
async fn state(Given((remote, running, meter)): Given<Wish>) -> String {
    let running =
        running.lock().expect("the wish").as_ref().is_some_and(|move_here| !move_here.is_finished());
    // In this order: what is told of a move that has ended is all that came.
    format!("{} {} {}", u64::from(running), meter.bytes(), remote.limits().streams)
}

/// How far a node is.
#[derive(Clone, Copy)]
pub struct State {
    pub runs: bool,
    /// Received by this life of it.
    pub bytes: u64,
    /// Connections of one fetch.
    pub streams: u64,
}

/// Asks a node at `/move` to go on with the move, or at `/state` how far it is; `None` while it is away.
pub fn ask(port: u16, what: &str) -> Option<State> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket
        .write_all(format!("GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    let numbers: Option<Vec<u64>> =
        text.rsplit("\r\n").next()?.split(' ').map(|word| word.trim().parse().ok()).collect();
    match numbers?[..] {
        [runs, bytes, streams] => Some(State { runs: runs != 0, bytes, streams }),
        _ => None,
    }
}
