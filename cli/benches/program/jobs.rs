//! How soon `sealyard sealing jobs` has listed them all.
//!
//! A hundred simulated workers run as many AddPieces of 512 MiB as they have memory for, and the others wait, as many of them with
//! a reason as the manager explains at once. The manager is in this process. The command is a process of its own that asks it
//! over a socket, and is timed from its start until all that it prints is read.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use manager::{ChainChoice, InitOptions, ManagerHandle, Repo, Timing};
use rpc::Permission;
use rpc::api::PledgeOptions;
use sealtasks::{ActorId, SectorSize};
use serde_json::Value;

use crate::system::{ok, sealyard};
use crate::world::fake_worker::{Behaviour, FakeWorker, Plan};
use crate::world::{ALL, FakeDialer, start_timed};
use crate::{Size, median, verdict};

const MOST: Duration = Duration::from_secs(1);
const ROUNDS: usize = 9;
/// Pledges under way at once while the jobs are made.
const AT_ONCE: usize = 256;
/// More than any of the workers has room for.
const HELD: usize = 100;

pub(crate) fn table(size: Size) {
    let (jobs, workers) = match size {
        Size::Quick => (50, 3),
        Size::Whole => (10_000, 100),
    };
    let home =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (handle, running, info) = runtime.block_on(begin(home.path(), jobs, workers));
    println!("{jobs} jobs, {running} of them at {workers} workers, {} waiting", jobs - running);
    for name in ["sealing jobs", "sealing jobs --json"] {
        let once = |_| {
            let begun = Instant::now();
            let told = ok(sealyard(home.path()).args(name.split(' ')).env("MINER_API_INFO", &info));
            let took = begun.elapsed().as_secs_f64();
            // Below a head.
            let lines = || told.lines().count() - 1;
            let listed =
                serde_json::from_str::<Vec<Value>>(&told).map_or_else(|_| lines(), |rows| rows.len());
            assert_eq!(listed, jobs, "all are told");
            took
        };
        let times: Vec<f64> = (0..ROUNDS).map(once).collect();
        let slowest = times.iter().copied().fold(0.0, f64::max);
        let took = median(times);
        println!(
            "    {name:<22} {took:.3} s, at most {slowest:.3} s, of {ROUNDS}   < {} s   {}",
            MOST.as_secs(),
            verdict(took < MOST.as_secs_f64())
        );
    }
    runtime.block_on(handle.stop());
    runtime.shutdown_background();
}

/// A manager with so many jobs, and what a command finds it by.
async fn begin(home: &Path, jobs: usize, workers: u16) -> (ManagerHandle, usize, String) {
    let repo = home.join("repo");
    Repo::init(&repo, InitOptions::new(ActorId::new(1000), SectorSize::MiB512)).expect("a new repo");
    let dialer = Arc::new(FakeDialer::default());
    let handle = start_timed(&repo, &dialer, ChainChoice::Offline, Timing::default()).await;
    let handle = handle.expect("the manager starts");
    for at in 0..workers {
        // The program ends soon, and with it what this keeps.
        let name: &'static str = Box::leak(format!("w{at}").into_boxed_str());
        let seed = 10_000 + u64::from(at);
        let worker = FakeWorker::new(Plan { name, seed, tasks: ALL, stores: false, sealyard: true });
        (0..HELD).for_each(|_| worker.script("AP", Behaviour::Hold));
        worker.serve(handle.api()).await;
        dialer.know(&worker);
        handle.api().worker_connect(worker.url()).await.expect("registered");
    }
    let api = handle.api();
    let pledge = |_| api.pledge(PledgeOptions::default());
    let mut pledged = stream::iter(0..jobs).map(pledge).buffer_unordered(AT_ONCE);
    while let Some(sector) = pledged.next().await {
        sector.expect("pledged");
    }
    drop(pledged);
    let running = loop {
        let told = api.jobs().await.expect("jobs");
        let of = |state: &str| told.iter().filter(|job| job.state == state).count();
        // Those that are bound are on their way to their workers.
        if told.len() == jobs && of("running") > 0 && of("running") + of("queued") == jobs {
            break of("running");
        }
        tokio::task::yield_now().await;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = handle.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = api.auth_new(Permission::ALL.to_vec()).await.expect("a token");
    (handle, running, format!("{token}:http://{address}"))
}
