//! What fetch tokens open under `/remote`, over real sockets; and which token a transfer shows.

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hyper::StatusCode;
use sealtasks::{
    AcquireMode, FetchScope, FetchVerb, FileType, FileTypes, PathType, SectorId, StorageId, WorkerId,
};
use stores::{
    CopyKind, FetchOptions, Index, Looking, PERMIT_HEADER, PeerTokens, Remote, TokenAccess, TokenUse,
    TransferMeter, VerifyToken, fetch_router,
};
use support::{Node, World, ask, ask_with, both, sector};
use tokio::net::TcpListener;

/// Tokens are written out: `fetch:<verbs>:<types>:<sector>@<path>`; everything else as the other tests have it.
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
        let (text, path) = text.split_once('@')?;
        let parts: Vec<&str> = text.split(':').collect();
        let [verbs, types, sector] = parts[..] else { return None };
        let verbs = [FetchVerb::Look, FetchVerb::Get, FetchVerb::Delete, FetchVerb::Remove]
            .into_iter()
            .filter(|verb| verbs.contains(verb.name()))
            .collect();
        let types: FileTypes =
            types.split(',').map(|name| name.parse::<FileType>().expect("a type")).collect();
        let sectors = vec![sector.parse::<SectorId>().expect("a sector")];
        let (worker, path) = (WorkerId::CLOSED, support::id(path));
        let scope = FetchScope { worker, path, sectors, types, verbs, until_ms: u64::MAX };
        Some(TokenAccess { admin: false, fetch: Some(scope) })
    }
}

/// A second door to the node's files, whose tokens are written out.
async fn door(node: &Node) -> String {
    door_looking(node, Looking::with_one_token("admin-token".to_owned())).await
}

async fn door_looking(node: &Node, looking: Looking) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    let router = fetch_router(node.local.clone(), Arc::new(WrittenOut), looking, None);
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
    let get = "fetch:get:sealed:s-t01000-1@a";
    assert_eq!(status("GET", &file("sealed", 1), get).await, StatusCode::OK);
    assert_eq!(status("HEAD", &file("sealed", 1), get).await, StatusCode::OK);
    assert_eq!(status("GET", &format!("{base}/stat/a"), get).await, StatusCode::OK);
    let refused = [
        ("GET", file("sealed", 2), get),
        ("GET", file("cache", 1), get),
        ("GET", file("sealed", 1), "fetch:delete:sealed:s-t01000-1@a"),
        ("DELETE", file("sealed", 1), get),
        ("POST", format!("{base}/vanilla/porep"), get),
        ("GET", file("sealed", 1), "fetch:look:sealed:s-t01000-1@a"),
        ("GET", file("sealed", 1), "fetch:get:sealed:s-t01000-1@b"),
        ("GET", format!("{base}/stat/a"), "fetch:get:sealed:s-t01000-1@b"),
        // Another spelling of a name is another name.
        ("GET", format!("{base}/sealed/s-t01000-01"), get),
        ("GET", format!("{base}/sealed/%2e%2e"), get),
        ("GET", format!("{base}/Sealed/s-t01000-1"), get),
    ];
    for (method, url, token) in &refused {
        assert_eq!(status(method, url, token).await, StatusCode::FORBIDDEN, "{method} {url} {token}");
    }
    // Who may take the cache may have it proven; that of another sector not.
    let body = |number: u64| {
        let cid = "bagboea4b5abcaaabaibqibiga4eascqlbqgq4dyqcejbgfavcylrqgi2dmob2hq7";
        format!(
            r#"{{"Miner":1000,"Sector":{{"SealProof":5,"SectorNumber":{number},"SealedCID":{{"/":"{cid}"}},"Challenge":[3]}},"ProofType":10}}"#
        )
    };
    let vanilla = format!("{base}/vanilla/single");
    let cache = [("authorization", "Bearer fetch:get:cache:s-t01000-1@a")];
    assert_eq!(
        ask_with("POST", &vanilla, &cache, &body(1)).await.0,
        StatusCode::INTERNAL_SERVER_ERROR,
        "no prover"
    );
    assert_eq!(ask_with("POST", &vanilla, &cache, &body(2)).await.0, StatusCode::FORBIDDEN);
    let sealed = [("authorization", "Bearer fetch:get:sealed:s-t01000-1@a")];
    assert_eq!(ask_with("POST", &vanilla, &sealed, &body(1)).await.0, StatusCode::FORBIDDEN);
    let look = "fetch:look:sealed:s-t01000-1@a";
    assert_eq!(status("HEAD", &file("sealed", 1), look).await, StatusCode::OK);
    let bearer = format!("Bearer {look}");
    let ranged = async |range| {
        let headers = [("authorization", bearer.as_str()), ("range", range)];
        ask("GET", &file("sealed", 1), &headers).await.0
    };
    assert_eq!(ranged("bytes=0-0").await, StatusCode::PARTIAL_CONTENT);
    assert_eq!(ranged("bytes=0-1").await, StatusCode::FORBIDDEN);
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
    let delete = "fetch:get,delete:sealed:s-t01000-1@a";
    assert_eq!(ask_with(delete, true).await, StatusCode::FORBIDDEN);
    // Allowed, but it is the last copy.
    assert_eq!(ask_with(delete, false).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(file.exists());
    assert_eq!(ask_with("fetch:get,remove:sealed:s-t01000-1@a", true).await, StatusCode::OK);
    assert!(!file.exists());
}

/// Writes out the token for each use, and remembers the uses.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

#[async_trait]
impl PeerTokens for Recorder {
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let TokenUse { path, sector, kind, verb, .. } = wanted;
        self.0.lock().expect("the record").push(format!("{verb} {kind} {sector}@{path}"));
        Ok(format!("fetch:{verb}:{kind}:{sector}@{path}"))
    }

    async fn stat_token(
        &self,
        _: &str,
        path: &StorageId,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(format!("fetch:stat@{path}"))
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
    assert_eq!(uses, ["get sealed s-t01000-1@a", "delete sealed s-t01000-1@a"]);
}

fn stores_info(old: &sealtasks::StorageInfo, base: &str) -> sealtasks::StorageInfo {
    sealtasks::StorageInfo { urls: vec![base.to_owned()], ..old.clone() }
}

/// A peer that declares a copy which it does not have, to be told tokens: every head that reaches it is recorded.
async fn eavesdropper(world: &World, name: &str, kinds: FileTypes) -> Arc<Mutex<Vec<String>>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/remote", listener.local_addr().expect("an address"));
    world.index.attach(support::info(name, &base, both()), support::room(1 << 20)).await.expect("attached");
    world.index.declare(&support::id(name), sector(1).id, kinds, CopyKind::Primary).await.expect("declared");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&heads);
    let answer = move |request: axum::extract::Request| {
        let auth = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let line = format!("{} {} {}", request.method(), request.uri().path(), auth.unwrap_or("-"));
        record.lock().expect("the record").push(line);
        // Whoever follows would show its token to yet another one.
        async { (StatusCode::FOUND, [("location", "/remote/elsewhere")]) }
    };
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    heads
}

/// What Lotus's worker asks after a move, with a token that opens everything everywhere.
#[tokio::test]
async fn who_declares_a_copy_is_never_told_the_token_of_whoever_asks_for_a_deletion() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let kinds = FileTypes::SEALED | FileTypes::CACHE;
    let files = [FileType::Sealed, FileType::Cache];
    let mut lie = Vec::new();
    for kind in files {
        lie.push(node.put("a", sector(1), kind).await);
    }
    let heard = eavesdropper(&world, "b", kinds).await;
    let tokens = Arc::new(Recorder::default());
    let looking = Looking { tokens, ..Looking::with_one_token(String::new()) };
    let base = door_looking(&node, looking).await;
    for kind in files {
        let url = format!("{base}/{kind}/s-t01000-1?keep=b");
        assert_eq!(ask("DELETE", &url, &[support::ADMIN]).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!(lie.iter().all(|file| file.exists()), "nobody has another copy");
    let heard = heard.lock().expect("the record").clone();
    let sealed = "GET /remote/sealed/s-t01000-1 Bearer fetch:look:sealed:s-t01000-1@b";
    let cache = "HEAD /remote/cache/s-t01000-1 Bearer fetch:look:cache:s-t01000-1@b";
    assert_eq!(heard, [sealed, cache], "each once, for looking there, and no redirect is followed");
}

/// Everything else that is asked of a URL which some peer declared.
#[tokio::test]
async fn every_token_that_a_declared_url_is_shown_names_its_path() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    let kinds = FileTypes::SEALED | FileTypes::CACHE | FileTypes::UNSEALED;
    let heard = eavesdropper(&world, "b", kinds).await;
    let options = FetchOptions { token: "admin-token".to_owned(), parallel: 1 };
    let tokens = Arc::new(Recorder::default());
    let remote = Remote::new(node.local.clone(), world.index.clone(), options).with_tokens(tokens);
    let (id, meter) = (sector(1).id, TransferMeter::default());
    let (seal, mode) = (PathType::Sealing, AcquireMode::Move);
    remote.acquire(sector(1), FileTypes::CACHE, FileTypes::NONE, seal, mode, &meter).await.expect_err("none");
    remote.is_unsealed(sector(1), 0..127).await.expect_err("no answer");
    remote.fs_stat(&support::id("b")).await.expect_err("no answer");
    remote.ask_urls(&world.index).await;
    remote.remove(id, FileType::Sealed, &[support::id("b")]).await.expect_err("it is the last copy");
    let permit = stores::DeletePermit { reason: "a test".to_owned() };
    remote.discard_all(id, FileType::Cache, &permit).await.expect("taken out of the index");
    let heard = heard.lock().expect("the record").clone();
    let verbs = ["get:cache", "get:unsealed", "stat", "look:sealed", "remove:cache"];
    for verb in verbs {
        assert!(heard.iter().any(|line| line.contains(&format!("Bearer fetch:{verb}"))), "{verb}: {heard:?}");
    }
    assert!(heard.iter().all(|line| line.ends_with("@b")), "{heard:?}");
}
