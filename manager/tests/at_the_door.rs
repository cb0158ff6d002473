//! The manager as others meet it: its repo on disk, its port, workers that cannot be dialled, results nobody asked for.

mod world;

use std::os::unix::fs::PermissionsExt as _;

use manager::{InitOptions, LocalStorage, Repo, RepoError};
use rpc::client::ManagerClient;
use rpc::{ApiInfo, ManagerApi, Permission, ReturnMethod, Returned, Transport};
use sealtasks::{ActorId, CallId, FileTypes, Proof, SectorId, SectorSize, TaskOutput, WorkerId};
use stores::StorageConfig;
use tempfile::TempDir;
use uuid::Uuid;
use world::world;

fn init_options(local_storage: LocalStorage) -> InitOptions {
    InitOptions { local_storage, ..InitOptions::new(ActorId::new(1000), SectorSize::KiB2) }
}

#[test]
fn a_new_repo_is_whole_and_private_and_is_never_made_twice() {
    let dir = TempDir::new().expect("a temporary directory");
    let repo = dir.path().join("deep/repo");
    Repo::init(&repo, init_options(LocalStorage::InRepo)).expect("a new repo");
    let mode = |name: &str| std::fs::metadata(repo.join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("state.db"), mode("token"), mode("keystore")), (0o600, 0o600, 0o700));
    let storage = StorageConfig::read(&repo.join("storage.json")).expect("storage.json");
    assert_eq!(storage.paths().collect::<Vec<_>>(), [repo.as_path()]);
    let meta = std::fs::read_to_string(repo.join("sectorstore.json")).expect("sectorstore.json");
    assert!(meta.contains("\"Weight\": 10") && meta.contains("\"CanStore\": true"), "{meta}");
    let siblings = std::fs::read_dir(repo.parent().expect("a parent")).expect("a listing").count();
    assert_eq!(siblings, 1, "nothing temporary is left");

    let before = std::fs::read(repo.join("token")).expect("a token");
    let again = Repo::init(&repo, init_options(LocalStorage::None)).expect_err("it is there");
    assert!(matches!(again, RepoError::Exists { .. }), "{again}");
    assert_eq!(std::fs::read(repo.join("token")).expect("a token"), before);
    let none = Repo::open(&dir.path().join("none")).expect_err("nothing there").to_string();
    assert!(none.contains("sealyard init"), "{none}");
    let opened = Repo::open(&repo).expect("it opens");
    let token = String::from_utf8(before).expect("text");
    assert_eq!(opened.secret().verify(&token).expect("its own token"), Permission::ALL);
}

#[tokio::test]
async fn a_worker_that_cannot_be_dialled_is_told_which_port_to_open() {
    let world = world().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}/rpc/v0");
    for answer in [world.api.worker_connect(url.clone()).await, world.api.can_reach(url.clone()).await] {
        let text = answer.expect_err("nobody listens").to_string();
        assert!(text.contains(&format!("could not reach {url}: ")), "{text}");
        assert!(text.contains(&format!("open TCP port {port} on that host or set --address")), "{text}");
    }
    assert!(world.api.worker_stats().await.expect("stats").is_empty());
    let state = rpc::extension::WorkerState {
        session: WorkerId(Uuid::from_u128(1)),
        name: "stranger".to_owned(),
        enabled: true,
        tasks: Default::default(),
        pending: Default::default(),
        mem_used: 0,
        repo: None,
        mem_swap_used: 0,
        mem_beside: 0,
        paths: Vec::new(),
        calls: Vec::new(),
        caps: Default::default(),
        machine: None,
        plan: Default::default(),
        threads: Vec::new(),
    };
    let text = world.api.worker_state(state).await.expect_err("a stranger").to_string();
    assert!(text.contains("not registered"), "{text}");
}

#[tokio::test]
async fn a_result_that_nobody_asked_for_is_acknowledged_and_kept_once() {
    let world = world().await;
    let call = CallId { sector: SectorId::new(1000, 1), id: Uuid::from_u128(42) };
    let method = ReturnMethod::SealCommit2;
    let returned = Returned {
        method,
        result: Ok(TaskOutput::Commit2(Proof(vec![1; 192]))),
        attempt: None,
        account: None,
    };
    world.api.return_result(call, returned.clone()).await.expect("acknowledged");
    world.api.return_result(call, returned).await.expect("acknowledged again");
    let kept = world.handle.state().orphans().await.expect("orphans");
    let [orphan] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(orphan.call == call && orphan.result.contains("ReturnSealCommit2"), "{orphan:?}");
    let diagnosis = world.api.sched_diag(false).await.expect("a diagnosis");
    assert_eq!(diagnosis["EarlyRet"], serde_json::json!([call.to_string()]));
}

#[tokio::test]
async fn the_port_serves_the_api_and_the_files_to_whom_the_tokens_allow() {
    let world = world().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let router = world.handle.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = world.handle.repo().secret().mint(&Permission::ALL).expect("a token");
    let client = |token: &str| {
        let separator = if token.is_empty() { "" } else { ":" };
        let info: ApiInfo =
            format!("{token}{separator}/ip4/127.0.0.1/tcp/{port}/http").parse().expect("an API info");
        ManagerClient::new(&info, Transport::Http).expect("a client")
    };
    let admin = client(&token);
    assert_eq!(admin.version().await.expect("a version").api_version, 66816);
    assert_eq!(admin.actor_address().await.expect("an actor"), ActorId::new(1000));
    assert_eq!(admin.session().await.expect("a session"), world.api.session().await.expect("a session"));
    let minted = admin.auth_new(vec![Permission::Read]).await.expect("a token");
    assert_eq!(admin.auth_verify(minted.clone()).await.expect("verified"), [Permission::Read]);
    let sector = admin.pledge_sector().await.expect("a pledge");
    assert!(admin.storage_try_lock(sector, FileTypes::SEALED, FileTypes::CACHE).await.expect("free"));
    assert_eq!(admin.overview().await.expect("an overview").chain, "offline");

    let reader = client(&minted);
    assert_eq!(reader.sectors_list().await.expect("a list").len(), 1);
    let text = reader.pledge_sector().await.expect_err("only reading is allowed").to_string();
    assert!(text.contains("missing permission") && text.contains("write"), "{text}");
    let stranger = client("e30.e30.e30");
    stranger.version().await.expect_err("a wrong token");
    assert_eq!(world.api.sectors_list().await.expect("a list").len(), 1);
}
