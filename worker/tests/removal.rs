//! `Worker.Remove`: a declaration alone takes no file away.

mod scripted;

use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rpc::WorkerApi as _;
use scripted::{SECTOR, ScriptedManager, World};
use sealtasks::{FileType, FileTypes, FsStat, StorageInfo, StorageStanza};
use stores::{CopyKind, Index as _};
use tokio::net::TcpListener;
use worker::{Worker, WorkerHandle};

async fn worker(manager: &Arc<ScriptedManager>) -> (World, WorkerHandle) {
    let mut world = World::new();
    world.manager = Arc::clone(manager);
    let repo = world.repo();
    let file = world.file(FileType::Sealed);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, [7; 2048]).unwrap();
    let mut options = world.options(repo);
    options.urls = vec!["http://127.0.0.1:1/remote".into()];
    let worker = Worker::start(options).await.unwrap();
    (world, worker)
}

/// A holder that is said to have the primary copy, and says this of it.
async fn stranger(manager: &ScriptedManager, length: Option<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}/remote", listener.local_addr().unwrap())];
    let answer = move |method: Method| async move {
        match length {
            Some(bytes) if method == Method::GET => {
                let range = [(header::CONTENT_RANGE, format!("bytes 0-0/{bytes}"))];
                (StatusCode::PARTIAL_CONTENT, range, "x").into_response()
            }
            _ => Response::builder().status(StatusCode::NOT_FOUND).body("".into()).unwrap(),
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let stanza = StorageStanza { can_store: true, ..StorageStanza::default() };
    let id: sealtasks::StorageId = "stranger".parse().unwrap();
    let info = StorageInfo { id: id.clone(), urls, stanza };
    manager.index.attach(info, FsStat::default()).await.unwrap();
    manager.index.declare(&id, SECTOR.id, FileTypes::SEALED, CopyKind::Primary).await.unwrap();
}

#[tokio::test]
async fn a_file_goes_only_if_the_primary_copy_elsewhere_was_asked_for() {
    for (length, goes) in [(None, false), (Some(2047), false), (Some(2048), true)] {
        let manager = Arc::new(ScriptedManager::new());
        let (world, worker) = worker(&manager).await;
        stranger(&manager, length).await;
        let removed = worker.remove(SECTOR.id).await;
        assert_eq!(removed.is_ok(), goes, "{length:?}: {removed:?}");
        assert_eq!(world.file(FileType::Sealed).exists(), !goes, "{length:?}");
        let left = manager.index.find(SECTOR.id, FileTypes::SEALED, None).await.unwrap();
        assert_eq!(left.len(), if goes { 1 } else { 2 }, "{length:?}");
        worker.close().await;
    }
}
