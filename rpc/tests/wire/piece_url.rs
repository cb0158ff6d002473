//! Pieces behind URLs: what is believed, followed, read and refused, and in which words.

use axum::http::{HeaderMap, StatusCode, header::LOCATION};
use axum::routing::get;
use rpc::piece_url::{self, Opened, PieceUrlError};
use rpc::tls::{Identity, Trust};
use rpc::{PieceData, server::Bounds};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::certs::{Authority, NOW};

const PIECE: usize = 1000;

async fn served(router: axum::Router, tls: Option<Identity>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(rpc::server::serve(listener, router, tls, Bounds::default()));
    address
}

async fn asked(url: &str, most: usize, trust: &Trust) -> Result<Vec<u8>, PieceUrlError> {
    let Opened { mut stream, .. } = piece_url::open(url, most as u64, trust).await?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("it ends well");
    Ok(read)
}

/// Sends on to `to`.
fn sends_on(to: String) -> axum::routing::MethodRouter {
    get(move || async move { (StatusCode::FOUND, [(LOCATION, to)]) })
}

#[tokio::test]
async fn a_url_is_read_by_a_plain_get_and_no_further_than_one_byte_beyond_the_piece() {
    let router = axum::Router::new()
        .route(
            "/piece",
            get(|headers: HeaderMap| async move {
                assert!(!headers.contains_key("authorization"), "no token of ours");
                vec![7; PIECE]
            }),
        )
        .route("/none", get(|| async { StatusCode::NO_CONTENT }));
    let address = served(router, None).await;
    let url = |path: &str| format!("http://{address}/{path}");
    let trust = Trust::system();
    assert_eq!(asked(&url("piece"), PIECE, &trust).await.expect("read"), [7; PIECE]);
    assert_eq!(asked(&url("piece"), 10, &trust).await.expect("read").len(), 11);
    let opened = piece_url::open(&url("piece"), 1, &trust).await.expect("it answers");
    assert_eq!(opened.stated, Some(PIECE as u64));
    assert!(PieceData::Zeros.open(10, &trust).await.expect("nothing to ask").is_none());
    let data = PieceData::Url(url("piece")).open(10, &trust).await.expect("it answers");
    assert!(data.is_some());
    for (url, code, text) in [
        (url("none?secret=1"), "RPC023", "answers HTTP 204; expected 200"),
        (url("absent"), "RPC023", "answers HTTP 404; expected 200"),
        ("http://127.0.0.1:1/secret=1".to_owned(), "RPC022", "cannot be reached"),
        ("file:///etc/secret=1".to_owned(), "RPC021", "the scheme \"file\"; expected http or https"),
        ("secret=1".to_owned(), "RPC020", "URL is none"),
    ] {
        let error = asked(&url, PIECE, &trust).await.expect_err(code);
        let shown = rpc::error::chain(&error);
        assert_eq!(error.code(), code, "{shown}");
        assert!(shown.contains(text) && !shown.contains("secret"), "{shown}");
    }
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_never_out_of_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path());
    let pair = authority.issue("here", "IP:127.0.0.1", NOW);
    let plain = served(
        axum::Router::new()
            .route("/piece", get(|| async { vec![7; PIECE] }))
            .route("/once", sends_on("/piece".to_owned()))
            .route("/circle", sends_on("/circle".to_owned())),
        None,
    )
    .await;
    let identity = Identity::load(&pair.certificate, &pair.key, "127.0.0.1").expect("a good pair");
    let router = axum::Router::new()
        .route("/piece", get(|| async { vec![8; PIECE] }))
        .route("/own", sends_on("/piece".to_owned()))
        .route("/out", sends_on(format!("http://{plain}/piece")));
    let secure = served(router, Some(identity)).await;
    let trust = Trust::with_file(&authority.own().certificate).expect("an authority");
    let (http, https) = (|path: &str| format!("http://{plain}/{path}"), format!("https://{secure}"));
    assert_eq!(asked(&http("once"), PIECE, &trust).await.expect("followed"), [7; PIECE]);
    assert_eq!(asked(&format!("{https}/piece"), PIECE, &trust).await.expect("believed"), [8; PIECE]);
    assert_eq!(asked(&format!("{https}/own"), PIECE, &trust).await.expect("followed"), [8; PIECE]);
    for (url, why) in [(http("circle"), "more than 5 times"), (format!("{https}/out"), "from https to http")]
    {
        let error = asked(&url, PIECE, &trust).await.expect_err(why);
        let shown = rpc::error::chain(&error);
        assert_eq!(error.code(), "RPC024", "{shown}");
        assert!(shown.contains(why), "{shown}");
    }
    let error = asked(&format!("{https}/piece"), PIECE, &Trust::system()).await.expect_err("not believed");
    let shown = rpc::error::chain(&error);
    assert!(error.code() == "RPC022" && shown.contains("TLS14") && shown.contains("--ca-file"), "{shown}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_never_a_short_piece() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("somebody asks");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a request"));
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome").await.expect("written");
    });
    let opened = piece_url::open(&format!("http://{address}/piece"), 1 << 20, &Trust::system()).await;
    let mut read = Vec::new();
    let error = opened.expect("it begins well").stream.read_to_end(&mut read).await.expect_err("it breaks");
    assert!(error.to_string().starts_with("RPC022: "), "{error}");
}
