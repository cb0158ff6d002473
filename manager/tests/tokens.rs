//! Tokens for one purpose at a manager's door: a worker's own, and those for fetching.

mod world;

use std::sync::Arc;

use rpc::client::ManagerClient;
use rpc::extension::FetchWish;
use rpc::{ApiError, ApiInfo, Grant, ManagerApi, Permission, ReturnMethod, Returned, Scope, Transport};
use sealtasks::{
    CallError, CallErrorCode, CallId, FetchScope, FetchVerb, FileTypes, SectorId, StorageId, TaskType,
    WorkerId,
};
use uuid::Uuid;
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{attempts, world};

fn path(id: &str) -> StorageId {
    id.parse().expect("a path's id")
}

fn worker(name: &'static str, seed: u64, sealyard: bool) -> Arc<FakeWorker> {
    FakeWorker::new(Plan { name, seed, tasks: &[TaskType::AddPiece], stores: false, sealyard })
}

async fn serve(world: &world::World) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let router = world.handle.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn client(port: u16, token: &str) -> ManagerClient {
    let info: ApiInfo = format!("{token}:/ip4/127.0.0.1/tcp/{port}/http").parse().expect("an API info");
    ManagerClient::new(&info, Transport::Http).expect("a client")
}

fn lacks_permission<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> bool {
    answer.expect_err("refused").to_string().contains("missing permission")
}

#[tokio::test]
async fn a_workers_own_token_opens_joining_returns_and_storage_and_no_other_call() {
    let world = world().await;
    let port = serve(&world).await;
    let token = world.api.auth_new_worker().await.expect("a token");
    let worker = client(port, &token);
    let Some(Scope::Worker { id }) = worker.verify_token(token.clone()).await.expect("known").scope else {
        panic!("another scope");
    };
    assert_ne!(id, Uuid::nil());
    assert_eq!(worker.auth_verify(token.clone()).await.expect("known"), [], "a Lotus sees no permission");
    assert_ne!(world.api.auth_new_worker().await.expect("another"), token);

    worker.version().await.expect("version");
    worker.session().await.expect("session");
    worker.storage_list().await.expect("the index");
    worker.storage_find(SectorId::new(1000, 1), FileTypes::SEALED, None).await.expect("the index");
    assert!(lacks_permission(worker.pledge_sector().await));
    assert!(lacks_permission(worker.auth_new(vec![Permission::Admin]).await));
    assert!(lacks_permission(worker.auth_new_worker().await));
    assert!(lacks_permission(worker.storage_add_local("/".into()).await));
    assert!(lacks_permission(worker.overview().await));
    assert!(lacks_permission(worker.jobs().await));
    assert!(lacks_permission(worker.shutdown().await));
    assert!(lacks_permission(worker.sealing_abort(CallId { sector: SectorId::new(1000, 1), id }).await));
}

#[tokio::test]
async fn a_workers_own_token_joins_no_lotus() {
    let world = world().await;
    let port = serve(&world).await;
    let token = world.api.auth_new_worker().await.expect("a token");
    // What answers there is a worker that has never heard of Sealyard.
    let lotus = worker("lotus", 1, false);
    world.know(&lotus).await;
    let answer = client(port, &token).worker_connect(lotus.url()).await.expect_err("refused").to_string();
    assert!(answer.contains("is no Sealyard worker"), "{answer}");
    client(port, &world.handle.repo().secret().mint(&Permission::ALL).expect("a token"))
        .worker_connect(lotus.url())
        .await
        .expect("an admin token joins it");
}

#[tokio::test]
async fn a_fetch_token_is_issued_for_a_task_alone_and_opens_no_api() {
    let world = world().await;
    let port = serve(&world).await;
    let secret = world.handle.repo().secret().clone();
    let admin = client(port, &secret.mint(&Permission::ALL).expect("a token"));
    let session = WorkerId(Uuid::from_u128(7));
    let wish = FetchWish {
        session,
        path: path("p"),
        sector: SectorId::new(1000, 1),
        types: FileTypes::SEALED,
        verbs: vec![FetchVerb::Get],
    };
    let refused = admin.fetch_token(wish).await.expect_err("no such worker").to_string();
    assert!(refused.contains("has no task about s-t01000-1"), "{refused}");

    let scope = |worker, until_ms| {
        let sectors = vec![SectorId::new(1000, 1)];
        let scope = FetchScope {
            worker,
            path: path("p"),
            sectors,
            types: FileTypes::SEALED,
            verbs: vec![FetchVerb::Get],
            until_ms,
        };
        secret.mint_scoped(Scope::Fetch(scope)).expect("a token")
    };
    let own = scope(WorkerId::CLOSED, u64::MAX);
    let grant: Grant = admin.verify_token(own.clone()).await.expect("good");
    assert!(matches!(grant.scope, Some(Scope::Fetch(_))) && grant.permissions.is_empty());
    assert!(lacks_permission(client(port, &own).version().await), "not even what everyone may ask");
    let late = admin.verify_token(scope(WorkerId::CLOSED, 1)).await.expect_err("late").to_string();
    assert!(late.contains("time is over"), "{late}");
    let idle = admin.verify_token(scope(session, u64::MAX)).await.expect_err("no task").to_string();
    assert!(idle.contains("is over"), "{idle}");
}

#[tokio::test]
async fn a_fetch_token_lasts_as_long_as_the_task_and_a_result_comes_from_its_own_worker() {
    let world = world().await;
    let port = serve(&world).await;
    let a = worker("A", 1, true);
    a.script("AP", Behaviour::Hold);
    world.know(&a).await;
    let own = world.api.auth_new_worker().await.expect("a token");
    client(port, &own).worker_connect(a.url()).await.expect("joined");
    let sector = world.api.pledge_sector().await.expect("a pledge");
    let taken = a.call_of("AP").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;

    let session = WorkerId(Uuid::from_u64_pair(1, 0));
    let verbs = vec![FetchVerb::Get];
    let wish = FetchWish { session, path: path("p"), sector, types: FileTypes::UNSEALED, verbs };
    let other = client(port, &world.api.auth_new_worker().await.expect("another token"));
    let refused = other.fetch_token(wish.clone()).await.expect_err("another worker's task").to_string();
    assert!(refused.contains("has no task"), "{refused}");
    let ticket = client(port, &own).fetch_token(wish).await.expect("a ticket");
    assert_eq!((ticket.lotus.len(), ticket.lotus_token), (0, None), "nobody here is a Lotus");
    let Some(Scope::Fetch(scope)) = other.verify_token(ticket.token.clone()).await.expect("good").scope
    else {
        panic!("another scope");
    };
    assert!(
        scope.worker == session
            && scope.path == path("p")
            && scope.sectors == [sector]
            && scope.types == FileTypes::UNSEALED
    );

    let message = "made up".to_owned();
    let lie = Returned {
        method: ReturnMethod::AddPiece,
        result: Err(CallError { code: CallErrorCode::Unknown, message }),
        attempt: taken.attempt,
        account: None,
    };
    let refused = other.return_result(taken.call, lie.clone()).await.expect_err("not its own").to_string();
    assert!(refused.contains("another worker's"), "{refused}");
    client(port, &own).return_result(taken.call, lie).await.expect("its own");
    world.sector(1, |sector| sector.tasks.iter().all(|row| row.state != "running")).await;
    let over = other.verify_token(ticket.token).await.expect_err("the task is over").to_string();
    assert!(over.contains("is over"), "{over}");
}

#[tokio::test]
async fn files_on_a_lotus_are_fetched_with_a_token_that_is_admin_there_and_opens_nothing_here() {
    let world = world().await;
    let port = serve(&world).await;
    let a = worker("A", 1, true);
    a.script("AP", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    let held = a.call_of("AP").await;
    let lotus = worker("lotus", 5, false);
    world.join(&lotus).await;
    lotus.declare(held.call.sector, FileTypes::SEALED).await;
    let session = WorkerId(Uuid::from_u64_pair(1, 0));
    let wish = |types| FetchWish {
        session,
        path: lotus.sealing.clone(),
        sector: held.call.sector,
        types,
        verbs: vec![FetchVerb::Get],
    };
    let ticket = world.api.fetch_token(wish(FileTypes::SEALED)).await.expect("a ticket");
    let host = lotus.url().trim_start_matches("http://").trim_end_matches("/rpc/v0").to_owned();
    assert_eq!(ticket.lotus, [host]);
    let token = ticket.lotus_token.expect("a token for it");
    assert_eq!(world.api.auth_verify(token.clone()).await.expect("good"), [Permission::Admin]);
    assert!(lacks_permission(client(port, &token).auth_new(vec![Permission::Admin]).await));
    assert!(lacks_permission(client(port, &token).version().await), "not even what everyone may ask");
    let scope = world.api.verify_token(token).await.expect("good").into_fetch_scope().expect("a scope");
    assert_eq!((scope.sectors, scope.types), (vec![held.call.sector], FileTypes::SEALED));
    assert_eq!(
        world.api.auth_verify(ticket.token).await.expect("good"),
        [],
        "the other is nothing to a Lotus"
    );
    let ticket = world.api.fetch_token(wish(FileTypes::CACHE)).await.expect("a ticket");
    assert_eq!((ticket.lotus.len(), ticket.lotus_token), (0, None), "it holds no such file");
}

#[tokio::test]
async fn a_worker_without_a_task_may_look_at_copies_and_on_a_lotus_only_beside_its_own() {
    let world = world().await;
    let port = serve(&world).await;
    let (a, lotus) = (worker("A", 1, true), worker("lotus", 5, false));
    world.know(&a).await;
    let own = world.api.auth_new_worker().await.expect("a token");
    client(port, &own).worker_connect(a.url()).await.expect("joined");
    world.join(&lotus).await;
    let sector = SectorId::new(1000, 9);
    lotus.declare(sector, FileTypes::SEALED).await;
    let session = WorkerId(Uuid::from_u64_pair(1, 0));
    let wish = |verbs: &[FetchVerb], types| {
        let (path, verbs) = (lotus.sealing.clone(), verbs.to_vec());
        FetchWish { session, path, sector, types, verbs }
    };
    let look = || wish(&[FetchVerb::Look], FileTypes::SEALED);
    let owner = client(port, &own);
    let ticket = owner.fetch_token(look()).await.expect("a ticket");
    assert_eq!((ticket.lotus.len(), ticket.lotus_token), (0, None), "it has nothing to compare");
    let scope = owner.verify_token(ticket.token).await.expect("good").into_fetch_scope().expect("a scope");
    assert_eq!((scope.verbs, scope.path), (vec![FetchVerb::Look], lotus.sealing.clone()));
    assert_eq!((scope.sectors, scope.types), (vec![sector], FileTypes::SEALED));
    assert_eq!(scope.worker, WorkerId::CLOSED, "it lasts minutes, not as long as a task");

    a.declare(sector, FileTypes::SEALED).await;
    let ticket = owner.fetch_token(look()).await.expect("a ticket");
    assert!(ticket.lotus.len() == 1 && ticket.lotus_token.is_some(), "it has");
    let other = client(port, &world.api.auth_new_worker().await.expect("another token"));
    for (asker, wish, why) in [
        (&other, look(), "another worker's session"),
        (&owner, wish(&[FetchVerb::Look, FetchVerb::Get], FileTypes::SEALED), "more than to look"),
        (&owner, wish(&[FetchVerb::Get], FileTypes::SEALED), "to get it"),
        (&owner, wish(&[FetchVerb::Look], FileTypes::NONE), "nothing"),
        (&owner, FetchWish { session: WorkerId(Uuid::from_u128(7)), ..look() }, "nobody's session"),
    ] {
        let refused = asker.fetch_token(wish).await.expect_err(why).to_string();
        assert!(refused.contains("has no task"), "{why}: {refused}");
    }
}

#[tokio::test]
async fn a_worker_ends_its_move_after_its_task_but_deletes_nothing_else() {
    let world = world().await;
    let port = serve(&world).await;
    let a = worker("A", 1, true);
    world.know(&a).await;
    let own = world.api.auth_new_worker().await.expect("a token");
    client(port, &own).worker_connect(a.url()).await.expect("joined");
    let sector = world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| attempts(sector, "AP").iter().any(|(state, _)| state == "done")).await;
    a.declare(sector, FileTypes::UNSEALED).await;

    let session = WorkerId(Uuid::from_u64_pair(1, 0));
    let wish = |types, verb| FetchWish { session, path: path("source"), sector, types, verbs: vec![verb] };
    let owner = client(port, &own);
    let ticket = owner.fetch_token(wish(FileTypes::UNSEALED, FetchVerb::Delete)).await.expect("a ticket");
    let Some(Scope::Fetch(scope)) = owner.verify_token(ticket.token).await.expect("good").scope else {
        panic!("another scope");
    };
    assert_eq!((scope.sectors, scope.types), (vec![sector], FileTypes::UNSEALED));
    assert_eq!((scope.verbs, scope.path), (vec![FetchVerb::Delete], path("source")));
    let other = client(port, &world.api.auth_new_worker().await.expect("another token"));
    for (asker, wish, why) in [
        (&owner, wish(FileTypes::UNSEALED, FetchVerb::Remove), "a last copy goes by a task alone"),
        (&owner, wish(FileTypes::SEALED, FetchVerb::Delete), "it holds no such file"),
        (&owner, wish(FileTypes::NONE, FetchVerb::Delete), "nothing"),
        (&other, wish(FileTypes::UNSEALED, FetchVerb::Delete), "another worker"),
        (
            &owner,
            FetchWish { sector: SectorId::new(1000, 2), ..wish(FileTypes::UNSEALED, FetchVerb::Delete) },
            "another sector",
        ),
    ] {
        let refused = asker.fetch_token(wish).await.expect_err(why).to_string();
        assert!(refused.contains("has no task"), "{why}: {refused}");
    }
}
