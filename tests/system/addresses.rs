//! Addresses for processes that bind their own again after a kill.
#![allow(dead_code, reason = "only some test targets kill what listens")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dice::Dice;

/// Three of this host's, as `HOST:PORT`. They are none of those that the system gives to clients, which would be in the way
/// when a process that was killed comes back.
pub fn free_addresses() -> [String; 3] {
    // Tests run at the same time.
    static CALLS: AtomicU64 = AtomicU64::new(1);
    let call = CALLS.fetch_add(2, Ordering::Relaxed);
    let mut dice = Dice((u64::from(std::process::id()) << 20) | call << 7 | 1);
    for _ in 0..9 {
        dice.below(1);
    }
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < 3 {
        let port = 10_000 + u16::try_from(dice.below(20_000)).expect("small");
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    [0, 1, 2].map(|at: usize| held[at].local_addr().expect("an address").to_string())
}
