//! Fetching over TLS: in blocks from a Sealyard, whole from a Lotus, and from nobody whose certificate is not believed.

#[path = "../../rpc/tests/wire/certs.rs"]
mod certs;
mod support;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use certs::{Authority, NOW, PAST, Pair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sealtasks::{AcquireMode, FileType, FileTypes, PathType, StorageInfo, chain};
use stores::{CopyKind, FetchOptions, Index, Remote, StoreError, TransferMeter};
use support::{Node, World, both, id, sector};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const HERE: &str = "IP:127.0.0.1";

fn believing(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Speaks TLS for a plain port. Its base URL.
async fn tls_before(plain: String, pair: &Pair) -> String {
    let certificate = CertificateDer::from_pem_file(&pair.certificate).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("https://{}/remote", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let mut behind = TcpStream::connect(&plain).await.expect("it listens");
                // Either side may hang up at any time.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    base
}

fn port_of(base: &str) -> String {
    base.trim_start_matches("http://").trim_end_matches("/remote").to_owned()
}

/// `a` holds the files and is known by its https address alone.
async fn holder(world: &World, pair: &Pair) -> Node {
    let a = world.node().await;
    a.path("a", both()).await;
    for kind in [FileType::Sealed, FileType::Cache] {
        a.put("a", sector(1), kind).await;
    }
    let base = tls_before(port_of(&a.base), pair).await;
    let index: &dyn Index = &*world.index;
    let old = index.info(&id("a")).await.expect("attached");
    index.detach(&id("a"), &a.base).await.expect("the plain address");
    index.attach(StorageInfo { urls: vec![base], ..old }, support::room(1 << 20)).await.expect("attached");
    let types = FileTypes::SEALED | FileTypes::CACHE;
    index.declare(&id("a"), sector(1).id, types, CopyKind::Primary).await.expect("declared");
    a
}

async fn move_to(
    world: &World,
    b: &Node,
    tls: Option<Arc<ClientConfig>>,
    kind: FileType,
) -> Result<(), StoreError> {
    let options = FetchOptions { token: "admin-token".to_owned(), parallel: 1 };
    let remote = Remote::new(b.local.clone(), world.index.clone(), options);
    let remote = match tls {
        Some(tls) => remote.with_tls(tls),
        None => remote,
    };
    let (meter, mode) = (TransferMeter::default(), AcquireMode::Move);
    remote.acquire(sector(1), kind.into(), FileTypes::NONE, PathType::Sealing, mode, &meter).await.map(drop)
}

#[tokio::test]
async fn files_move_in_blocks_over_tls_and_the_source_is_asked_over_tls_to_delete_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let world = World::new();
    let a = holder(&world, &authority.issue("here", HERE, NOW)).await;
    let b = world.node().await;
    b.path("b", both()).await;
    let tls = believing(&authority.own().certificate);
    for kind in [FileType::Sealed, FileType::Cache] {
        move_to(&world, &b, Some(tls.clone()), kind)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(world.holders(sector(1), kind).await, ["b*"], "moved");
        let file = |node: &Node, path: &str| {
            node.dir.path().join(path).join(kind.name()).join(sector(1).id.to_string())
        };
        assert!(file(&b, "b").exists() && !file(&a, "a").exists());
    }
}

#[tokio::test]
async fn a_file_comes_whole_over_tls_from_a_lotus() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let plain = listener.local_addr().expect("an address").to_string();
    let answer = || async { ([(CONTENT_TYPE, "application/octet-stream")], vec![9; 2048]).into_response() };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let base = tls_before(plain, &authority.issue("here", HERE, NOW)).await;
    world.index.attach(support::info("x", &base, both()), support::room(0)).await.expect("attached");
    let types = FileTypes::SEALED;
    world.index.declare(&id("x"), sector(1).id, types, CopyKind::Primary).await.expect("declared");
    let b = world.node().await;
    b.path("b", both()).await;
    let tls = believing(&authority.own().certificate);
    move_to(&world, &b, Some(tls), FileType::Sealed)
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let file = b.dir.path().join("b/sealed").join(sector(1).id.to_string());
    assert_eq!(std::fs::read(file).expect("here"), vec![9; 2048]);
}

#[tokio::test]
async fn from_a_holder_that_is_not_believed_nothing_comes_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let good = believing(&authority.own().certificate);
    let cases = [
        (authority.issue("here", HERE, NOW), None, "UnknownIssuer"),
        (authority.issue("old", HERE, PAST), Some(good.clone()), "expired"),
        (authority.issue("else", "DNS:other.example", NOW), Some(good), "not valid for name"),
    ];
    for (pair, tls, why) in cases {
        let world = World::new();
        let a = holder(&world, &pair).await;
        let b = world.node().await;
        b.path("b", both()).await;
        let error = move_to(&world, &b, tls, FileType::Sealed).await.expect_err(why);
        assert!(chain(&error).contains(why), "{why}: {}", chain(&error));
        assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
        assert!(a.dir.path().join("a/sealed").join(sector(1).id.to_string()).exists());
    }
}
