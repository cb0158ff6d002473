//! A small world for the tests: one index, and nodes with real directories and a real HTTP server each.

#![allow(dead_code, reason = "every test target uses its own part of this module")]
#![allow(missing_docs, reason = "test support")]

pub mod mount;
pub mod through;
pub mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sealtasks::{
    C1Output, ExecutorFailure, ExecutorRequest, FailureClass, FileType, FileTypes, FsStat,
    RegisteredSealProof, SectorId, SectorRef, SectorSize, StorageId, StorageInfo, StorageStanza, TaskInput,
    TaskOutput, VanillaProof,
};
use stores::{
    Clock, CopyKind, FetchOptions, Index, Local, LocalOptions, Looking, MemIndex, Prover, Remote,
    StorageMeta, VerifyToken, fetch_router, init_path,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub const SIZE: SectorSize = SectorSize::KiB2;

/// Sector `number` of miner 1000, 2 KiB.
pub fn sector(number: u64) -> SectorRef {
    SectorRef { id: SectorId::new(1000, number), proof: RegisteredSealProof::for_new_sector(SIZE) }
}

pub fn id(text: &str) -> StorageId {
    text.parse().expect("a storage id")
}

/// A path for both uses with weight 10.
pub fn both() -> StorageStanza {
    StorageStanza { weight: 10, can_seal: true, can_store: true, ..StorageStanza::default() }
}

pub fn sealing() -> StorageStanza {
    StorageStanza { can_store: false, ..both() }
}

pub fn storing() -> StorageStanza {
    StorageStanza { can_seal: false, ..both() }
}

pub fn info(name: &str, url: &str, stanza: StorageStanza) -> StorageInfo {
    StorageInfo { id: id(name), urls: vec![url.to_owned()], stanza }
}

pub fn room(bytes: i64) -> FsStat {
    FsStat { capacity: bytes, available: bytes, fs_available: bytes, ..FsStat::default() }
}

/// A clock that only the test moves.
pub fn clock() -> (Arc<AtomicU64>, Clock) {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let hands = Arc::clone(&now);
    (now, Arc::new(move || hands.load(Ordering::SeqCst)))
}

pub struct World {
    pub index: Arc<MemIndex>,
}

impl World {
    pub fn new() -> Self {
        Self { index: Arc::new(MemIndex::new(clock().1)) }
    }

    pub async fn node(&self) -> Node {
        self.node_behind(|own| own).await
    }

    /// A node that reaches the index by way of another one.
    pub async fn node_over(&self, index: Arc<dyn Index>) -> Node {
        node_in(tempfile::tempdir().expect("a temporary directory"), index, |own| own).await
    }

    /// A node that is reached by what `front` makes of its own address.
    pub async fn node_behind(&self, front: impl FnOnce(SocketAddr) -> SocketAddr) -> Node {
        node_in(tempfile::tempdir().expect("a temporary directory"), self.index.clone(), front).await
    }

    /// The same node in its next life, at another address.
    pub async fn restarted(&self, node: Node) -> Node {
        node.local.close_all().await.expect("closed");
        node_in(node.dir, self.index.clone(), |own| own).await
    }

    /// Which paths hold a file, with `*` behind the primary ones.
    pub async fn holders(&self, sector: SectorRef, kind: FileType) -> Vec<String> {
        let found = self.index.find(sector.id, kind.into(), None).await.expect("the index answers");
        found.into_iter().map(|one| format!("{}{}", one.id, if one.primary { "*" } else { "" })).collect()
    }

    /// A holder that is no Sealyard: it answers every GET with these raw bytes and records what it was asked.
    pub async fn stranger(
        &self,
        name: &str,
        kinds: FileTypes,
        sector: SectorRef,
        answer: Vec<u8>,
    ) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
        self.index.attach(info(name, &base, both()), room(0)).await.expect("attached");
        self.index.declare(&id(name), sector.id, kinds, CopyKind::Primary).await.expect("declared");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                let is_get = line.starts_with("GET");
                record.lock().expect("the record").push(line);
                let refuse =
                    b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = socket.write_all(if is_get { &answer } else { refuse }).await;
                let _ = socket.shutdown().await;
            }
        });
        Stranger { asked }
    }
}

pub struct Stranger {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stranger {
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the record").clone()
    }
}

pub struct Node {
    pub dir: TempDir,
    pub local: Arc<Local>,
    pub remote: Remote,
    pub base: String,
}

impl Node {
    /// Makes a storage path with this id and opens it.
    pub async fn path(&self, name: &str, stanza: StorageStanza) -> PathBuf {
        let dir = self.dir.path().join(name);
        init_path(&dir, &StorageMeta::new(&id(name), &stanza)).expect("a new path");
        self.local.attach_path(&dir).await.expect("it opens");
        dir
    }

    /// Puts a file of a sector into a path and lets the node declare it.
    pub async fn put(&self, path: &str, sector: SectorRef, kind: FileType) -> PathBuf {
        let file = write_file(&self.dir.path().join(path), sector, kind);
        self.local.redeclare(Some(&id(path)), false).await.expect("declared");
        file
    }
}

async fn node_in(dir: TempDir, index: Arc<dyn Index>, front: impl FnOnce(SocketAddr) -> SocketAddr) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", front(listener.local_addr().expect("an address")));
    let config = dir.path().join("storage.json");
    let options = LocalOptions { config, urls: vec![base.clone()], index: index.clone() };
    let (local, problems) = Local::open(options).await.expect("an empty node opens");
    assert!(problems.is_empty());
    let looking = Looking::with_one_token("admin-token".to_owned());
    let router = fetch_router(local.clone(), Arc::new(Tokens), looking, Some(Arc::new(Reader)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let fetch = FetchOptions { token: "admin-token".to_owned(), parallel: 2 };
    Node { remote: Remote::new(local.clone(), index, fetch), dir, base, local }
}

/// Content that tells sectors and types apart.
pub fn content(sector: SectorRef, kind: FileType) -> Vec<u8> {
    let seed = sector.id.number.get() as u8 ^ kind.bit();
    (0..SIZE.bytes()).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// The files of a cache directory after PreCommit2 of a 2 KiB sector.
pub fn cache_files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("p_aux", vec![1; 64]),
        ("t_aux", vec![2; 300]),
        ("sc-02-data-layer-1.dat", vec![3; 2048]),
        ("sc-02-data-layer-2.dat", vec![4; 2048]),
        ("sc-02-data-tree-c.dat", vec![5; 1000]),
        ("sc-02-data-tree-d.dat", vec![6; 4064]),
        ("sc-02-data-tree-r-last.dat", vec![7; 32]),
    ])
}

pub fn write_file(path: &Path, sector: SectorRef, kind: FileType) -> PathBuf {
    let file = path.join(kind.name()).join(sector.id.to_string());
    if kind.is_directory() {
        fs::create_dir_all(&file).expect("a directory");
        for (name, bytes) in cache_files() {
            fs::write(file.join(name), bytes).expect("a member");
        }
    } else {
        fs::write(&file, content(sector, kind)).expect("a file");
    }
    file
}

/// Everything below a directory but the two JSON files, as relative paths.
pub fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_none_or(|end| end != "json") {
                found.push(path.strip_prefix(dir).expect("below").display().to_string());
            }
        }
    }
    found.sort();
    found
}

pub struct Tokens;

#[async_trait]
impl VerifyToken for Tokens {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        match token {
            "admin-token" => Some(vec!["read".to_owned(), "admin".to_owned()]),
            "reader-token" => Some(vec!["read".to_owned()]),
            _ => None,
        }
    }
}

/// One request over a real socket.
pub async fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
    ask_with(method, url, headers, "").await
}

/// The same with a body.
pub async fn ask_with(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, Bytes) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request =
        Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a verb")).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client
        .request(request.body(Full::from(body.to_owned())).expect("a request"))
        .await
        .expect("an answer");
    let (head, body) = answer.into_parts();
    (head.status, head.headers, body.collect().await.expect("a whole body").to_bytes())
}

pub const ADMIN: (&str, &str) = ("authorization", "Bearer admin-token");

/// Stands in for the executor, which another room has: the "proof" is what lies in the files, and a file with the word `bad`
/// in it is at fault.
pub struct Reader;

#[async_trait]
impl Prover for Reader {
    async fn prove(&self, request: ExecutorRequest) -> Result<TaskOutput, ExecutorFailure> {
        let failed = |class, message: &str| Err(ExecutorFailure { class, message: message.to_owned() });
        let Ok(sealed) = std::fs::read(&request.files.0[&FileType::Sealed]) else {
            return failed(FailureClass::BadData, "sealed: it is not there");
        };
        let cached = request.files.0[&FileType::Cache].join("p_aux");
        let found = [sealed, std::fs::read(cached).unwrap_or_default()].concat();
        match &request.work {
            _ if found.windows(3).any(|word| word == b"bad") => {
                failed(FailureClass::BadData, "sealed: it is bad")
            }
            _ if found.windows(4).any(|word| word == b"busy") => {
                failed(FailureClass::Environment, "no executor starts")
            }
            TaskInput::Vanilla(input) => {
                let told = format!("{} {:?} ", input.sealed, input.challenges).into_bytes();
                Ok(TaskOutput::Vanilla(VanillaProof([told, found].concat())))
            }
            TaskInput::Commit1(input) => {
                let told = format!("{} {} {:?} ", input.ticket, input.seed, input.pieces).into_bytes();
                Ok(TaskOutput::Commit1(C1Output([told, found].concat())))
            }
            other => panic!("{other:?}"),
        }
    }
}
