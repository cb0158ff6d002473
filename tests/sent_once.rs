//! The manager's own process is killed around the push of a message, and the node fails after it has taken one: of each message
//! exactly one is on chain. Each kind of message, alone and in a batch, with sectors that were really sealed and proven.
//!
//! Proofs take a minute of two cores each, so that proofs' messages are left out, aloud, unless `SEALYARD_SENT_ONCE=all`; one of them,
//! killed before its push and behind it, is in `tests/on_chain.rs`.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees which cases were tried")]

mod standin;
mod system;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use standin::{AfterPush, PRE_COMMIT, PROVE_COMMIT, StandInNode, World};
use system::parameters::{self, PROVING_MAX};
use system::{COMMAND_MAX, Daemon, ask_until, json, kill, ok, sealyard};

const FULL_NODE: &str = "FULLNODE_API_INFO";
const SECTORS: [&str; 2] = ["1", "2"];
/// Heights between a pre-commitment and its seed: nothing is proven before a test wants it.
const CHALLENGE_DELAY: i64 = 5000;

/// What goes wrong with a message.
#[derive(Clone, Debug)]
enum Trouble {
    /// The manager dies there.
    Dies(&'static str),
    /// The node takes the message, and ends the call so.
    Ends(AfterPush),
}

/// All that may go wrong.
fn troubles() -> [Trouble; 4] {
    [
        Trouble::Dies("manager.message.intended"),
        Trouble::Dies("manager.message.answered"),
        Trouble::Ends(AfterPush::Error(1, "failed to save nonce: no space left on device".to_owned())),
        Trouble::Ends(AfterPush::Close),
    ]
}

/// A kind of message, and the states of its sector before and behind it.
struct Kind {
    method: u64,
    key: &'static str,
    waits: &'static str,
    sent: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { method: PRE_COMMIT, key: "pre_commit_batch", waits: "PreCommitting", sent: "PreCommitWait" },
    Kind { method: PROVE_COMMIT, key: "prove_commit_batch", waits: "SubmitCommit", sent: "CommitWait" },
];

/// A home with a manager for the chain of a node.
struct Yard {
    home: tempfile::TempDir,
    node: StandInNode,
    _runtime: tokio::runtime::Runtime,
}

impl Yard {
    fn new() -> Self {
        // The node answers while this thread waits for processes.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let node =
            runtime.block_on(StandInNode::start(World { challenge_delay: CHALLENGE_DELAY, ..World::new() }));
        let home = tempfile::tempdir().expect("a directory");
        parameters::generate(home.path());
        let init = ["init", "--actor", "t01000"];
        ok(sealyard(home.path()).args(init).env(FULL_NODE, node.api_info()));
        Self { home, node, _runtime: runtime }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts the manager with a batch of so many of this kind; messages of other kinds wait.
    fn start(&self, kind: &Kind, batch: usize, crash: Option<&str>) -> Daemon {
        let config = format!("[chain]\n{} = {batch}\n", kind.key);
        fs::write(self.home().join(".sealyard/config.toml"), config).expect("config.toml");
        let mut run = sealyard(self.home());
        run.args(["run", "--listen", "127.0.0.1:0", "--send-messages"]).env(FULL_NODE, self.node.api_info());
        run.envs(crash.map(|crash| ("SEALYARD_CRASH_AT", crash)));
        let mut manager = Daemon::start("manager", &mut run);
        if crash.is_some() {
            manager.expect_or_end("listening on");
        } else {
            manager.expect("listening on");
        }
        manager
    }

    fn until(&self, number: &str, state: &str) {
        let status = || json(self.home(), &["sectors", "status", number]);
        ask_until(state, PROVING_MAX, status, |status| status["state"] == state);
    }

    /// Both sectors wait for their batch, and no message has gone.
    fn until_they_wait(&self, kind: &Kind) {
        for number in SECTORS {
            self.until(number, kind.waits);
            let why = || json(self.home(), &["sealing", "why", number]);
            let waits = |why: &Value| {
                why["summary"].as_str().is_some_and(|text| text.contains("waits for its batch"))
            };
            ask_until("the batch", COMMAND_MAX, why, waits);
        }
    }

    /// Has both sectors' messages of this kind sent in batches of so many, with that trouble for the first one, from where both
    /// wait for their batch.
    fn sends(&self, kind: &Kind, batch: usize, trouble: &Trouble) {
        let mark = self.home().join("died");
        let method = if kind.method == PRE_COMMIT { "PreCommitSectorBatch2" } else { "ProveCommitSectors3" };
        match trouble {
            Trouble::Dies(point) => {
                let crash = format!("{point}/{method}@{}", mark.display());
                let mut manager = self.start(kind, batch, Some(&crash));
                ask_until(point, COMMAND_MAX, || mark.exists(), |died| *died);
                assert_eq!(manager.end(), None, "killed, not exited");
                let pushed = usize::from(*point == "manager.message.answered");
                assert_eq!(self.node.world().sent(kind.method).len(), pushed, "{point}");
            }
            Trouble::Ends(after) => self.node.world().after_push = after.clone(),
        }
        // What is nowhere is sent again some heights later. Without that it is found, wherever it is.
        self.node.world().mines_when_looked_at = true;
        let mut manager = self.start(kind, batch, None);
        for number in SECTORS {
            let status = || json(self.home(), &["sectors", "status", "--log", number]);
            let log = |status: &Value| status["log"].to_string().contains(&format!("now {}", kind.sent));
            ask_until(kind.sent, COMMAND_MAX, status, log);
        }
        kill(&mut manager);
        let mut world = self.node.world();
        world.mine_many(3);
        let sent = world.sent(kind.method).len();
        assert_eq!(sent, SECTORS.len() / batch, "{trouble:?}, {batch}: each message is sent once");
        let done = world.chain.iter().flat_map(|tipset| tipset.messages.iter().zip(&tipset.receipts));
        let ends: Vec<u32> = done
            .filter(|(signed, _)| signed["Message"]["Method"] == kind.method)
            .map(|(_, receipt)| receipt.exit_code)
            .collect();
        assert_eq!(ends, vec![0; sent], "{trouble:?}, {batch}: and is on chain once");
    }
}

/// The files of a home, which are put back after each case.
struct Kept<'a> {
    yard: &'a Yard,
    files: tempfile::TempDir,
    world: World,
}

impl<'a> Kept<'a> {
    fn of(yard: &'a Yard) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        copy(yard.home(), &files.path().join("home"));
        let world = yard.node.world().clone();
        Self { yard, files, world }
    }

    fn put_back(&self) {
        for entry in fs::read_dir(self.yard.home()).expect("a home") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("it goes");
            } else {
                fs::remove_file(path).expect("it goes");
            }
        }
        copy(&self.files.path().join("home/."), self.yard.home());
        *self.yard.node.world() = self.world.clone();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
}

#[test]
fn each_message_is_on_chain_once_whatever_happens_around_its_push() {
    let yard = Yard::new();
    let [pre_commit, prove] = &KINDS;
    let mut manager = yard.start(pre_commit, 3, None);
    SECTORS.iter().for_each(|_| drop(ok(sealyard(yard.home()).args(["sectors", "pledge"]))));
    yard.until_they_wait(pre_commit);
    kill(&mut manager);
    every_case(&yard, pre_commit);
    if std::env::var("SEALYARD_SENT_ONCE").as_deref() != Ok("all") {
        println!("LEFT OUT: proofs' messages; SEALYARD_SENT_ONCE=all tries them, too");
        return;
    }
    yard.sends(pre_commit, 2, &Trouble::Ends(AfterPush::Answer));
    {
        let mut world = yard.node.world();
        let height = world.head().height + CHALLENGE_DELAY + 10;
        world.mine_at(height, Vec::new());
        world.mine_many(10);
    }
    let mut manager = yard.start(prove, 3, None);
    yard.until_they_wait(prove);
    kill(&mut manager);
    yard.node.world().mines_when_looked_at = false;
    every_case(&yard, prove);
}

fn every_case(yard: &Yard, kind: &Kind) {
    let kept = Kept::of(yard);
    for batch in [1, 2] {
        for trouble in troubles() {
            println!("{}: {batch} in a message, {trouble:?}", kind.key);
            yard.sends(kind, batch, &trouble);
            kept.put_back();
        }
    }
}
