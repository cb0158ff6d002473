//! A wire in front of a daemon that can hold back requests to delete, so that what is true just before can be looked at.
#![allow(dead_code, reason = "only some test targets need one")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Bytes carried at once; a request's head fits.
const CARRIED: usize = 64 << 10;

#[derive(Default)]
struct State {
    /// The daemon, once it is known where it listens.
    backend: Option<String>,
    holds: bool,
    /// Requests to delete that wait.
    waiting: usize,
}

/// A wire; it carries what comes to its address.
#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Wire {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let own = wire.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = own.clone();
                thread::spawn(move || own.carry(client));
            }
        });
        wire
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn leads_to(&self, backend: &str) {
        self.change(|state| state.backend = Some(backend.to_owned()));
    }

    /// From now on, requests to delete wait here, or go on.
    pub fn holds_deletions(&self, holds: bool) {
        self.change(|state| state.holds = holds);
    }

    /// Waits until so many requests to delete wait here.
    pub fn expect_held(&self, count: usize, bound: Duration) {
        let (state, changed) = &*self.state;
        let state = state.lock().expect("the wire");
        let (state, _) =
            changed.wait_timeout_while(state, bound, |state| state.waiting < count).expect("the wire");
        assert!(state.waiting >= count, "{} of {count} requests to delete came", state.waiting);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.0.lock().expect("the wire"));
        self.state.1.notify_all();
    }

    fn carry(&self, client: TcpStream) {
        let backend = self.state.0.lock().expect("the wire").backend.clone();
        let Some(server) = backend.and_then(|backend| TcpStream::connect(backend).ok()) else { return };
        let (mut asks, mut to_server) =
            (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let own = self.clone();
        let asking = thread::spawn(move || {
            let mut bytes = vec![0; CARRIED];
            while let Ok(got @ 1..) = asks.read(&mut bytes) {
                if bytes.starts_with(b"DELETE ") {
                    own.hold();
                }
                if to_server.write_all(&bytes[..got]).is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut &server, &mut &client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = asking.join();
    }

    fn hold(&self) {
        let (state, changed) = &*self.state;
        let mut state = state.lock().expect("the wire");
        state.waiting += 1;
        changed.notify_all();
        let mut state = changed.wait_while(state, |state| state.holds).expect("the wire");
        state.waiting -= 1;
    }
}
