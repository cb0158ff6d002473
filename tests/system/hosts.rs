//! Hosts on this machine: network namespaces with nothing but wires between them. They need root and iproute2; where those
//! are missing whoever wanted them says so.
#![allow(dead_code, reason = "only some test targets need a network")]

use std::path::Path;
use std::process::Command;

use super::{COMMAND_MAX, SEALYARD, quiet, run_within, text};

/// Set where networks are permitted, so that nothing that needs one is left out.
const REQUIRED: &str = "SEALYARD_TESTS_NETWORK";

/// Namespaces 10.77.0.1 (the manager's), 10.77.0.2, …, each of the others with a wire to a switch in the first.
pub struct Hosts {
    tag: u32,
    /// The first one's included.
    number: usize,
}

impl Hosts {
    /// `None`: this machine does not permit it. With `SEALYARD_TESTS_NETWORK` that is a failure.
    #[expect(clippy::print_stderr, reason = "whoever reads the test's output must see what was left out")]
    pub fn new(number: usize) -> Option<Self> {
        let hosts = Self { tag: std::process::id(), number };
        for line in hosts.plan() {
            let output = run_within(Command::new("sh").args(["-c", &line]), COMMAND_MAX);
            if !output.status.success() {
                let why = format!("{line}: {}", text(&output.stderr).trim());
                assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
                eprintln!("LEFT OUT: {why}");
                return None;
            }
        }
        Some(hosts)
    }

    fn plan(&self) -> Vec<String> {
        let m = self.name(0);
        let mut plan = vec![
            format!("ip netns add {m}"),
            format!("ip -n {m} link add switch type bridge stp_state 0"),
            format!("ip -n {m} addr add 10.77.0.1/24 dev switch"),
            format!("ip -n {m} link set switch up"),
            format!("ip -n {m} link set lo up"),
        ];
        for at in 1..self.number {
            let (host, wire) = (self.name(at), self.wire(at));
            plan.extend([
                format!("ip netns add {host}"),
                format!("ip link add {wire} netns {m} type veth peer name wire netns {host}"),
                format!("ip -n {m} link set {wire} master switch"),
                format!("ip -n {m} link set {wire} up"),
                format!("ip -n {host} addr add 10.77.0.{}/24 dev wire", at + 1),
                format!("ip -n {host} link set wire up"),
                format!("ip -n {host} link set lo up"),
                // An address that the others have no route to.
                format!("ip -n {host} addr add 192.0.2.9/32 dev lo"),
            ]);
        }
        plan
    }

    fn name(&self, host: usize) -> String {
        format!("sy{}h{host}", self.tag)
    }

    /// The first host's end of another one's wire.
    fn wire(&self, host: usize) -> String {
        format!("v{}h{host}", self.tag)
    }

    /// The program on one of the hosts.
    pub fn on(&self, host: usize, home: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), SEALYARD]);
        quiet(&mut command, home);
        command
    }

    /// Cuts one host off from all others, or joins it again. Nobody is told.
    pub fn set_wire(&self, host: usize, whole: bool) {
        let state = if whole { "up" } else { "down" };
        self.switch("ip", &["link", "set", &self.wire(host), state]);
    }

    /// Cuts all but the first off from each other, or joins them again: each still reaches the first.
    pub fn set_between(&self, whole: bool) {
        let state = if whole { "off" } else { "on" };
        (1..self.number).for_each(|host| {
            self.switch("bridge", &["link", "set", "dev", &self.wire(host), "isolated", state])
        });
    }

    fn switch(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        let done = command.args(["-n", &self.name(0)]).args(args).status();
        assert!(done.is_ok_and(|status| status.success()), "{program} {args:?}");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..self.number {
            let _ = Command::new("ip").args(["netns", "del", &self.name(host)]).output();
        }
    }
}
