//! A scripted miner with a real worker process at it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::go::Client;
use super::http::{Answer, Payload, send};
use super::miner::{LotusMiner, Taken};
use crate::system::{Daemon, sealyard};

/// For one event that is due at once.
pub const EVENT_MAX: Duration = Duration::from_secs(60);
/// Unpadded bytes of a 2 KiB sector.
pub const WHOLE: usize = 2032;

/// A miner, a worker that joined it, and a client with the miner's token for that worker.
pub struct Yard {
    pub home: tempfile::TempDir,
    pub miner: LotusMiner,
    pub process: Daemon,
    pub worker: Client,
    pub taken: Taken,
}

impl Yard {
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let miner = LotusMiner::start(home.path());
        let process = run_worker(home.path(), &miner);
        let taken = miner.taken(0);
        let worker = Client::new(&taken.address, Some(&taken.token));
        let yard = Self { home, miner, process, worker, taken };
        // The worker is taken a moment before it hears of it.
        yard.miner
            .inner
            .trace
            .first("the end of WorkerConnect", EVENT_MAX, |call| call.method == "WorkerConnect");
        yard
    }

    pub fn repo(&self) -> PathBuf {
        self.home.path().join("W")
    }

    pub fn sector(number: u64) -> Value {
        json!({ "ID": { "Miner": 1000, "Number": number }, "ProofType": 5 })
    }

    pub fn done(&self, method: &str, params: Value) -> Value {
        self.miner.done(&self.worker, method, params)
    }

    /// A piece of zeros, as for a pledge.
    pub fn add_zeros(&self, number: u64) -> Value {
        let reader = json!({ "Type": "null", "Info": WHOLE.to_string() });
        self.done("AddPiece", json!([Self::sector(number), null, WHOLE, reader]))
    }

    /// A request to `/remote` with the miner's own token.
    pub fn remote(&self, method: &str, below: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {}", self.miner.inner.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend(headers);
        send(&self.taken.address, method, &format!("/remote/{below}"), &all, Payload::None)
            .expect("an answer")
    }

    pub fn end(mut self) {
        let complaints = self.miner.complaints();
        assert!(complaints.is_empty(), "{}\n{}", complaints.join("\n"), self.process.said());
    }
}

/// The worker process in its repo below `home`, registered.
pub fn run_worker(home: &Path, miner: &LotusMiner) -> Daemon {
    let mut command = sealyard(home);
    command.env("MINER_API_INFO", miner.api_info()).args([
        "worker",
        "run",
        "--name",
        "W",
        "--no-params-fetch",
    ]);
    command.args(["--address", "127.0.0.1:0", "--worker-repo"]).arg(home.join("W"));
    let mut worker = Daemon::start("worker", &mut command);
    worker.expect("registered");
    worker
}
