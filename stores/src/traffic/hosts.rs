//! How fast each host has been, and which of them has just failed. Told the time; never touches a socket.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Hosts remembered; beyond, all are forgotten.
const HOSTS_MAX: usize = 4096;
/// A host that failed is asked last for so long.
const BLAMED: Duration = Duration::from_secs(600);

/// What is known of hosts, by `host:port`.
#[derive(Default)]
pub(super) struct Hosts(HashMap<String, Host>);

#[derive(Clone, Copy, Default)]
struct Host {
    /// Bytes per second; `None` = it never brought anything.
    rate: Option<u64>,
    failed: Option<Instant>,
}

impl Hosts {
    /// What a download from this host brought.
    pub(super) fn learn(&mut self, url: &str, bytes: u64, took: Duration) {
        let host = self.host(url);
        host.failed = None;
        // Nothing came where all of it was here from an earlier fetch.
        if bytes > 0 {
            let rate = (bytes as f64 / took.as_secs_f64().max(1e-3)) as u64;
            host.rate = Some(host.rate.map_or(rate, |known| known.midpoint(rate)));
        }
    }

    /// Nothing came from this host.
    pub(super) fn blame(&mut self, url: &str, now: Instant) {
        self.host(url).failed = Some(now);
    }

    /// What is to be expected of a host (bytes per second): nothing of one that has just failed, else its own rate, or of
    /// an unknown one the best that is known, so that each is tried.
    pub(super) fn expected(&self, url: &str, now: Instant) -> u64 {
        let known = self.0.get(host_of(url)).copied().unwrap_or_default();
        if known.failed.is_some_and(|failed| now.saturating_duration_since(failed) < BLAMED) {
            return 0;
        }
        let best = || self.0.values().filter_map(|host| host.rate).max().unwrap_or(0);
        known.rate.unwrap_or_else(best)
    }

    fn host(&mut self, url: &str) -> &mut Host {
        if self.0.len() >= HOSTS_MAX && !self.0.contains_key(host_of(url)) {
            self.0.clear();
        }
        self.0.entry(host_of(url).to_owned()).or_default()
    }
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_ranked_by_what_they_brought() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        assert_eq!(hosts.expected("http://new:1/remote", now), 0);
        hosts.learn("http://fast:1/remote/sealed/s-t01000-1", 1000, Duration::from_secs(1));
        hosts.learn("http://slow:1/remote", 10, Duration::from_secs(1));
        assert_eq!(hosts.expected("http://new:1/x", now), 1000, "tried before the slow one");
        assert_eq!(hosts.expected("http://slow:1/y", now), 10);
        hosts.learn("http://slow:1/y", 0, Duration::from_secs(9));
        assert_eq!(hosts.expected("http://slow:1/y", now), 10, "nothing had to come");
    }

    #[test]
    fn a_host_that_failed_is_asked_last_for_a_while_even_if_it_never_brought_anything() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        hosts.learn("http://fast:1/remote", 1000, Duration::from_secs(1));
        hosts.blame("http://fast:1/z", now);
        hosts.blame("http://never:1/z", now);
        assert_eq!((hosts.expected("http://fast:1/z", now), hosts.expected("http://never:1/z", now)), (0, 0));
        let later = now + BLAMED;
        assert_eq!(hosts.expected("http://fast:1/z", later), 1000);
        assert_eq!(hosts.expected("http://never:1/z", later), 1000, "tried again");
        hosts.blame("http://fast:1/z", now);
        hosts.learn("http://fast:1/remote", 0, Duration::from_secs(1));
        assert_eq!(hosts.expected("http://fast:1/z", now), 1000, "it answered");
    }
}
