//! The wire from end to end: fakes behind real sockets, our clients, and Go's bytes as Go writes them.

mod api_info;
mod auth;
mod bulk;
mod calls;
mod certs;
mod door;
mod explained;
mod fakes;
mod framing;
mod keystore;
mod lotus_api;
mod operator;
mod piece_url;
mod pipelining;
mod proving;
mod push;
mod returns;
mod round_trip;
mod sample;
mod tls;

/// Serves a router on a free port of this host until the test ends.
pub async fn serve(router: axum::Router) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(rpc::server::serve(listener, router, None, rpc::server::Bounds::default()));
    address
}
