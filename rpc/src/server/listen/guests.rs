//! Who is connected: how many, and how many from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The count. Clones share it.
#[derive(Clone)]
pub(super) struct Guests(Arc<Shared>);

struct Shared {
    most: usize,
    most_from_one: usize,
    /// By address; nobody stands here with 0.
    seated: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// A place; free again when dropped.
pub(super) struct Seat {
    guests: Guests,
    from: IpAddr,
}

impl Guests {
    pub(super) fn new(most: usize, most_from_one: usize) -> Self {
        Self(Arc::new(Shared { most, most_from_one, seated: Mutex::default() }))
    }

    /// A place for one more, if there is one.
    pub(super) fn admit(&self, from: IpAddr) -> Option<Seat> {
        let from = household(from);
        let mut seated = self.0.seated.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *seated;
        let here = by_address.get(&from).copied().unwrap_or(0);
        if *all >= self.0.most || here >= self.0.most_from_one {
            return None;
        }
        *all += 1;
        by_address.insert(from, here + 1);
        Some(Seat { guests: self.clone(), from })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.guests.0.seated.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *seated;
        *all -= 1;
        if let Some(here) = by_address.get_mut(&self.from) {
            *here -= 1;
            if *here == 0 {
                by_address.remove(&self.from);
            }
        }
    }
}

/// Whoever has one address of IPv6 has the 2^64 of its network.
fn household(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_counted_by_address_and_given_back() {
        let guests = Guests::new(3, 2);
        let first = guests.admit(ip("10.0.0.1")).expect("room");
        let second = guests.admit(ip("::ffff:10.0.0.1")).expect("room for two of one address");
        assert!(guests.admit(ip("10.0.0.1")).is_none(), "the same address in either form");
        let third = guests.admit(ip("2001:db8::1")).expect("room for others");
        assert!(guests.admit(ip("10.0.0.2")).is_none(), "three is all");
        drop(first);
        let fourth = guests.admit(ip("2001:db8::ffff")).expect("room again");
        drop(second);
        assert!(guests.admit(ip("2001:db8::2")).is_none(), "one network is one guest");
        drop((third, fourth));
        assert_eq!(*guests.0.seated.lock().expect("no panic"), (0, HashMap::new()));
    }
}
