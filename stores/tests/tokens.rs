//! What fetch tokens open under `/remote`, over real sockets; and which token a transfer shows.

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hyper::StatusCode;
use sealtasks::{AcquireMode, FetchScope, FetchVerb, FileType, FileTypes, PathType, SectorId, WorkerId};
use stores::{
    FetchOptions, Index, PERMIT_HEADER, PeerTokens, Remote, TokenAccess, TokenUse, TransferMeter,
    VerifyToken, fetch_router,
};
use support::{Node, World, ask, both, sector};
use tokio::net::TcpListener;

/// Tokens are written out: `fetch:<verbs>:<types>:<sector>`; everything else as the other tests have it.
struct WrittenOut;

#[async_trait]
impl VerifyToken for WrittenOut {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        support::Tokens.permissions(token).await
    }

    async fn access(&self, token: &str) -> Option<TokenAccess> {
        let Some(text) = token.strip_prefix("fetch:") else {
            let admin = self.permissions(token).await?.contains(&"admin".to_owned());
            return Some(TokenAccess { admin, fetch: None });
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [verbs, types, sector] = parts[..] else { return None };
        let verbs = [FetchVerb::Get, FetchVerb::Delete, FetchVerb::Remove]
            .into_iter()
            .filter(|verb| verbs.contains(verb.name()))
            .collect();
        let types: FileTypes =
            types.split(',').map(|name| name.parse::<FileType>().expect("a type")).collect();
        let sectors = vec![sector.parse::<SectorId>().expect("a sector")];
        let scope = FetchScope { worker: WorkerId::CLOSED, sectors, types, verbs, until_ms: u64::MAX };
        Some(TokenAccess { admin: false, fetch: Some(scope) })
    }
}

/// A second door to the node's files, whose tokens are written out.
async fn door(node: &Node) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    let router = fetch_router(node.local.clone(), Arc::new(WrittenOut));
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

async fn status(method: &str, url: &str, token: &str) -> StatusCode {
    ask(method, url, &[("authorization", &format!("Bearer {token}"))]).await.0
}

#[tokio::test]
async fn a_fetch_token_opens_the_files_and_deeds_it_names_and_nothing_else() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    for number in [1, 2] {
        node.put("a", sector(number), FileType::Sealed).await;
        node.put("a", sector(number), FileType::Cache).await;
    }
    let base = door(&node).await;
    let file = |kind: &str, number: u64| format!("{base}/{kind}/s-t01000-{number}");
    let get = "fetch:get:sealed:s-t01000-1";
    assert_eq!(status("GET", &file("sealed", 1), get).await, StatusCode::OK);
    assert_eq!(status("HEAD", &file("sealed", 1), get).await, StatusCode::OK);
    assert_eq!(status("GET", &format!("{base}/stat/a"), get).await, StatusCode::OK);
    let refused = [
        ("GET", file("sealed", 2), get),
        ("GET", file("cache", 1), get),
        ("GET", file("sealed", 1), "fetch:delete:sealed:s-t01000-1"),
        ("DELETE", file("sealed", 1), get),
        ("POST", format!("{base}/vanilla/porep"), get),
        // Another spelling of a name is another name.
        ("GET", format!("{base}/sealed/s-t01000-01"), get),
        ("GET", format!("{base}/sealed/%2e%2e"), get),
        ("GET", format!("{base}/Sealed/s-t01000-1"), get),
    ];
    for (method, url, token) in &refused {
        assert_eq!(status(method, url, token).await, StatusCode::FORBIDDEN, "{method} {url} {token}");
    }
    assert_eq!(status("GET", &file("sealed", 1), "none").await, StatusCode::UNAUTHORIZED);
    let (_, _, why) = ask("GET", &file("cache", 1), &[("authorization", &format!("Bearer {get}"))]).await;
    assert_eq!(why, "this fetch token does not allow to get the cache file of s-t01000-1\n");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
}

#[tokio::test]
async fn a_token_for_deleting_does_not_remove_and_one_for_removing_does() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let file = node.put("a", sector(1), FileType::Sealed).await;
    let url = format!("{}/sealed/s-t01000-1", door(&node).await);
    let ask_with = async |token: &str, permit: bool| {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if permit {
            headers.push((PERMIT_HEADER, "a test"));
        }
        ask("DELETE", &url, &headers).await.0
    };
    let delete = "fetch:get,delete:sealed:s-t01000-1";
    assert_eq!(ask_with(delete, true).await, StatusCode::FORBIDDEN);
    // Allowed, but it is the last copy.
    assert_eq!(ask_with(delete, false).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(file.exists());
    assert_eq!(ask_with("fetch:get,remove:sealed:s-t01000-1", true).await, StatusCode::OK);
    assert!(!file.exists());
}

/// Writes out the token for each use, and remembers the uses.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

#[async_trait]
impl PeerTokens for Recorder {
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let TokenUse { sector, kind, verb, .. } = wanted;
        self.0.lock().expect("the record").push(format!("{verb} {kind} {sector}"));
        // Who deletes lets the holder look at the other copy.
        Ok(format!("fetch:get,{verb}:{kind}:{sector}"))
    }
}

struct Refuser;

#[async_trait]
impl PeerTokens for Refuser {
    async fn token(&self, _: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Err("the task is over".into())
    }
}

#[tokio::test]
async fn a_move_asks_for_one_token_a_deed_and_fails_without() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    a.path("a", both()).await;
    b.path("b", both()).await;
    let source = a.put("a", sector(1), FileType::Sealed).await;
    // The source is reached by the door that knows fetch tokens, the target as the checking source finds it.
    let old = format!("{}/stat/a", a.base);
    assert_eq!(ask("GET", &old, &[support::ADMIN]).await.0, StatusCode::OK);
    let base = door(&a).await;
    let index: Arc<dyn Index> = world.index.clone();
    let info = index.info(&support::id("a")).await.expect("attached");
    index.detach(&support::id("a"), &a.base).await.expect("the old door");
    index.attach(stores_info(&info, &base), support::room(1 << 20)).await.expect("the new door");
    index
        .declare(&support::id("a"), sector(1).id, FileTypes::SEALED, stores::CopyKind::Primary)
        .await
        .expect("declared");

    let options = || FetchOptions { token: "nothing".to_owned(), parallel: 1 };
    let refused = Remote::new(b.local.clone(), index.clone(), options()).with_tokens(Arc::new(Refuser));
    let meter = TransferMeter::default();
    let (seal, mode) = (PathType::Sealing, AcquireMode::Move);
    let error = refused
        .acquire(sector(1), FileTypes::SEALED, FileTypes::NONE, seal, mode, &meter)
        .await
        .expect_err("no token");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("transfer with"), "{cause}");
    assert!(source.exists());

    let recorder = Arc::new(Recorder::default());
    let remote = Remote::new(b.local.clone(), index, options()).with_tokens(recorder.clone());
    remote.acquire(sector(1), FileTypes::SEALED, FileTypes::NONE, seal, mode, &meter).await.expect("moved");
    let mut uses = recorder.0.lock().expect("the record").clone();
    uses.dedup();
    assert_eq!(uses, ["get sealed s-t01000-1", "delete sealed s-t01000-1"]);
}

fn stores_info(old: &sealtasks::StorageInfo, base: &str) -> sealtasks::StorageInfo {
    sealtasks::StorageInfo { urls: vec![base.to_owned()], ..old.clone() }
}
