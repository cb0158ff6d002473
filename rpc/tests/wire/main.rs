//! The wire from end to end: fakes behind real sockets, our clients, and Go's bytes as Go writes them.

mod api_info;
mod auth;
mod certs;
mod door;
mod explained;
mod fakes;
mod framing;
mod keystore;
mod operator;
mod push;
mod returns;
mod round_trip;
mod sample;
mod tls;
