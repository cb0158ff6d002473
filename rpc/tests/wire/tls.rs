//! TLS by certificate files: what is served, what is believed, what is refused and in which words. Nothing here falls
//! back to plain HTTP.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rpc::server::Bounds;
use rpc::tls::{Identity, TlsError, Trust};
use rpc::{ApiInfo, ManagerApi as _, ManagerClient, Transport, WorkerApi as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::certs::{AHEAD, Authority, NOW, PAST, Pair};
use crate::fakes::{FakeWorker, ManagerHost, WorkerHost};
use crate::framing::post;

const HERE: &str = "DNS:localhost,IP:127.0.0.1";

fn identity(pair: &Pair) -> Result<Identity, TlsError> {
    Identity::load(&pair.certificate, &pair.key, "127.0.0.1")
}

async fn served(router: axum::Router, tls: Identity) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(rpc::server::serve(listener, router, Some(tls), Bounds::default()));
    address
}

fn client(host: &ManagerHost, address: &str, transport: Transport, trust: &Trust) -> ManagerClient {
    let info: ApiInfo =
        format!("{}:{address}", host.token(&rpc::Permission::ALL)).parse().expect("an API info");
    ManagerClient::trusting(&info, transport, trust).expect("a client")
}

#[tokio::test]
async fn managers_and_workers_are_called_over_tls_by_every_form_of_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let pair = authority.issue("here", HERE, NOW);
    let trust = Trust::with_file(&authority.own().certificate).expect("an authority");
    let host = ManagerHost::start().await;
    let port = served(host.router(), identity(&pair).expect("a good pair")).await.port();
    for address in [
        format!("/ip4/127.0.0.1/tcp/{port}/https"),
        format!("/ip4/127.0.0.1/tcp/{port}/wss"),
        format!("/dns/localhost/tcp/{port}/tls/http"),
        format!("/dns4/localhost/tcp/{port}/tls/ws"),
        format!("https://127.0.0.1:{port}"),
        format!("wss://localhost:{port}/rpc/v0"),
    ] {
        for transport in [Transport::Http, Transport::Ws] {
            let version = client(&host, &address, transport, &trust).version().await;
            version.unwrap_or_else(|error| panic!("{address} {transport:?}: {}", rpc::error::chain(&error)));
        }
    }
    let worker = WorkerHost::start(FakeWorker::default()).await;
    let address = served(worker.router(), identity(&pair).expect("a good pair")).await;
    let url = format!("https://{address}/rpc/v0").parse().expect("a URL");
    for transport in [Transport::Http, Transport::Ws] {
        let token = worker.manager.token(&[rpc::Permission::Admin]);
        let client = rpc::WorkerClient::trusting(&url, Some(token), transport, &trust, &rpc::Mark::default())
            .expect("a client");
        client.info().await.expect("it answers");
    }
}

/// A server that shows whatever it is given, as a peer of another make might.
async fn shows(pair: &Pair) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&pair.certificate).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let mut first = [0];
                let read = stream.read(&mut first).await;
                assert!(
                    matches!(read, Ok(0) | Err(_)),
                    "something was said to a server that is not believed"
                );
            }
        }
    });
    address
}

#[tokio::test]
async fn certificates_that_are_not_to_be_believed_are_refused_each_in_its_own_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(&dir.path().join("known"));
    let stranger = Authority::new(&dir.path().join("unknown"));
    let trust = Trust::with_file(&authority.own().certificate).expect("an authority");
    let host = ManagerHost::start().await;
    let cases = [
        (authority.issue("old", HERE, PAST), "TLS11", "expired"),
        (authority.issue("early", HERE, AHEAD), "TLS12", "not valid for another"),
        (authority.issue("else", "DNS:other.example", NOW), "TLS13", "other.example"),
        (stranger.issue("alien", HERE, NOW), "TLS14", "--ca-file"),
        (stranger.own(), "TLS15", "CA:TRUE"),
    ];
    for (pair, code, word) in cases {
        let address = format!("https://{}", shows(&pair).await);
        for transport in [Transport::Http, Transport::Ws] {
            let error = client(&host, &address, transport, &trust).version().await.expect_err(code);
            assert_eq!(error.code(), "RPC001");
            let text = rpc::error::chain(&error);
            assert!(text.contains(code) && text.contains(word), "{transport:?} {code}: {text}");
        }
    }
    // Whom only the file names is believed because of the file.
    let good = format!("https://{}", shows(&authority.issue("good", HERE, NOW)).await);
    let error = client(&host, &good, Transport::Http, &Trust::system()).version().await.expect_err("unknown");
    assert!(rpc::error::chain(&error).contains("TLS14"), "{}", rpc::error::chain(&error));
}

#[tokio::test]
async fn https_is_never_spoken_in_the_clear_and_a_tls_port_says_what_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let trust = Trust::with_file(&authority.own().certificate).expect("an authority");
    let host = ManagerHost::start().await;
    for transport in [Transport::Http, Transport::Ws] {
        let plain = format!("https://{}", host.address);
        let error = client(&host, &plain, transport, &trust).version().await.expect_err("no TLS there");
        let text = rpc::error::chain(&error);
        assert!(text.contains("TLS16"), "{transport:?}: {text}");
    }
    let pair = authority.issue("here", HERE, NOW);
    let address = served(host.router(), identity(&pair).expect("a good pair")).await;
    let answer = post(address, "/rpc/v0", &[], "{}").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with("TLS10: this port speaks TLS"), "{}", answer.body);
    let http = client(&host, &format!("http://{address}"), Transport::Http, &trust);
    let error = http.version().await.expect_err("plain").to_string();
    assert!(error.contains("TLS10"), "{error}");
    let error = client(&host, &format!("http://{address}"), Transport::Ws, &trust).version().await;
    assert!(rpc::error::chain(&error.expect_err("plain")).contains("400"));
}

fn refused(pair: &Pair, code: &str) -> String {
    let text = rpc::error::chain(&identity(pair).expect_err(code));
    assert!(text.starts_with(code), "{code}: {text}");
    text
}

#[test]
fn files_that_no_peer_would_accept_are_refused_before_anything_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let authority = Authority::new(dir.path());
    let good = authority.issue("good", HERE, NOW);
    let another = authority.issue("another", HERE, NOW);
    identity(&good).expect("a good pair");

    refused(&Pair { certificate: at("nowhere.pem"), ..good.clone() }, "TLS01");
    refused(&Pair { key: at("nowhere.key"), ..good.clone() }, "TLS01");
    std::fs::write(at("text.pem"), "no certificate").expect("written");
    refused(&Pair { certificate: at("text.pem"), ..good.clone() }, "TLS02");
    refused(&Pair { certificate: good.key.clone(), ..good.clone() }, "TLS02");
    let secret = |name: &str, text: &str| {
        std::fs::write(at(name), text).expect("written");
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).expect("changed");
        at(name)
    };
    refused(&Pair { key: secret("text.key", "no key"), ..good.clone() }, "TLS03");
    authority.openssl("pkcs8 -topk8 -in good.key -out sealed.key -passout pass:secret");
    let text = refused(&Pair { key: at("sealed.key"), ..good.clone() }, "TLS03");
    assert!(text.contains("passphrase"), "{text}");
    let bytes = std::fs::read_to_string(&good.key).expect("a key");
    let open = secret("open.key", &bytes);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("changed");
    assert!(refused(&Pair { key: open, ..good.clone() }, "TLS04").contains("0644"));
    refused(&Pair { key: another.key, ..good.clone() }, "TLS05");
    refused(&authority.issue("old", HERE, PAST), "TLS06");
    refused(&authority.issue("early", HERE, AHEAD), "TLS07");
    let text = refused(&authority.issue("else", "DNS:other.example,IP:10.0.0.1", NOW), "TLS08");
    assert!(text.contains("other.example") && text.contains("127.0.0.1"), "{text}");
    let text = refused(&authority.own(), "TLS09");
    assert!(text.contains("CA:TRUE"), "{text}");

    let text = Trust::with_file(&at("text.pem")).expect_err("no authority").to_string();
    assert!(text.starts_with("TLS02"), "{text}");
    std::fs::write(at("huge.pem"), vec![b'x'; (4 << 20) + 1]).expect("written");
    let error = Trust::with_file(&at("huge.pem")).expect_err("too long");
    assert!(rpc::error::chain(&error).contains("larger than 4 MiB"));
}

fn replace(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).expect("copied");
    std::fs::rename(&beside, to).expect("renamed");
}

#[tokio::test]
async fn renewed_files_hold_without_a_restart_and_half_renewed_ones_do_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (Authority::new(&dir.path().join("1")), Authority::new(&dir.path().join("2")));
    let pair = first.issue("here", HERE, NOW);
    let renewed = second.issue("here", HERE, NOW);
    let trust = Trust::with_file(&second.own().certificate).expect("an authority");
    let host = ManagerHost::start().await;
    // The listener looks at the files of the one that it shows when it likes, and says a change once. So what is said is
    // asked of another one, and of this one only that it has looked.
    let (shown, asked) = (identity(&pair).expect("a good pair"), identity(&pair).expect("a good pair"));
    let address = format!("https://{}", served(host.router(), shown.clone()).await);
    let ask = async || client(&host, &address, Transport::Http, &trust).version().await.map(drop);
    let refreshed = || {
        let said = asked.refresh();
        drop(shown.refresh());
        said
    };

    assert!(!refreshed().expect("nothing changed"));
    ask().await.expect_err("the first authority is not ours");
    replace(&renewed.certificate, &pair.certificate);
    let half = refreshed().expect_err("the key is still the old one").to_string();
    assert!(half.starts_with("TLS05"), "{half}");
    assert!(!refreshed().expect("said once"));
    ask().await.expect_err("the old certificate is still shown");
    replace(&renewed.key, &pair.key);
    assert!(refreshed().expect("whole"));
    ask().await.expect("the new certificate is shown");
}
