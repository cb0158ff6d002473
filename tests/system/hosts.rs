//! Two hosts on this machine: network namespaces with nothing but a wire between them. They need root and iproute2; where
//! those are missing whoever wanted them says so.
#![allow(dead_code, reason = "only some test targets need a network")]

use std::path::Path;
use std::process::Command;

use super::{COMMAND_MAX, SEALYARD, quiet, run_within, text};

/// Two namespaces joined by a veth pair: 10.77.0.1 (the manager's) and 10.77.0.2 (the workers').
pub struct Hosts {
    names: [String; 2],
    wire: String,
}

impl Hosts {
    /// `None`: this machine does not permit it.
    #[expect(clippy::print_stderr, reason = "whoever reads the test's output must see what was left out")]
    pub fn new() -> Option<Self> {
        let tag = std::process::id();
        let wire = format!("v{tag}m");
        let hosts = Self { names: [format!("sy{tag}m"), format!("sy{tag}w")], wire };
        let (m, w) = (&hosts.names[0], &hosts.names[1]);
        let plan = [
            format!("ip netns add {m}"),
            format!("ip netns add {w}"),
            format!("ip link add v{tag}m netns {m} type veth peer name v{tag}w netns {w}"),
            format!("ip -n {m} addr add 10.77.0.1/24 dev v{tag}m"),
            format!("ip -n {w} addr add 10.77.0.2/24 dev v{tag}w"),
            format!("ip -n {m} link set v{tag}m up"),
            format!("ip -n {w} link set v{tag}w up"),
            format!("ip -n {m} link set lo up"),
            format!("ip -n {w} link set lo up"),
            // An address of the worker's that the manager has no route to.
            format!("ip -n {w} addr add 192.0.2.9/32 dev lo"),
        ];
        for line in plan {
            let output = run_within(Command::new("sh").args(["-c", &line]), COMMAND_MAX);
            if !output.status.success() {
                eprintln!("LEFT OUT: {line}: {}", text(&output.stderr).trim());
                return None;
            }
        }
        Some(hosts)
    }

    /// The program on one of the two hosts.
    pub fn on(&self, host: usize, home: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host], SEALYARD]);
        quiet(&mut command, home);
        command
    }

    /// Cuts the wire, or joins it again. Nobody is told.
    pub fn set_wire(&self, whole: bool) {
        let state = if whole { "up" } else { "down" };
        let mut ip = Command::new("ip");
        let done = ip.args(["-n", &self.names[0], "link", "set", &self.wire, state]).status();
        assert!(done.is_ok_and(|status| status.success()), "the wire is {state}");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}
