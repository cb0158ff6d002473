//! The processor time of a manager whose workers have nothing to do.
//!
//! The workers are simulated in its own process: they are dialled, registered and sent a heartbeat every ten seconds as real ones
//! are, and answer it with their state and the health of their paths, but no byte goes over a socket. What a socket adds is about
//! 10 µs a message at the manager's end; ten real workers are measured by `cargo bench -p sealyard --bench program -- idle`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manager::{ChainChoice, InitOptions, Repo, Timing};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rpc::ManagerApi;
use sealtasks::{ActorId, FsStat, HealthReport, SectorSize, StorageInfo, StorageStanza};

use crate::world::fake_worker::{FakeWorker, Plan};
use crate::world::{ALL, FakeDialer, start_timed};
use crate::{Size, verdict};

/// Workers, and the most that a manager may take of a core for them.
const FLEETS: [(u16, Option<f64>); 3] = [(10, Some(0.001)), (1_000, None), (10_000, Some(0.03))];
/// The first simulated worker's port, and its seed: no two have one.
const FIRST: u16 = 10_000;

pub(crate) fn table(size: Size) {
    for (workers, most) in FLEETS {
        let (workers, span) = match size {
            Size::Quick => (workers.min(20), Duration::from_millis(200)),
            // Several heartbeats of each.
            Size::Whole => (workers, Duration::from_secs(60)),
        };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let part = runtime.block_on(measure(workers, span));
        runtime.shutdown_background();
        let goal = most.map(|most| format!("<= {} %   {}", most * 100.0, verdict(part <= most)));
        println!(
            "idle with {workers} workers   {:.3} % of a core   {}",
            part * 100.0,
            goal.unwrap_or_default()
        );
    }
}

/// The part of a core that this process takes.
async fn measure(workers: u16, span: Duration) -> f64 {
    let dir =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let repo = dir.path().join("repo");
    Repo::init(&repo, InitOptions::new(ActorId::new(1000), SectorSize::GiB32)).expect("a new repo");
    let dialer = Arc::new(FakeDialer::default());
    let handle = start_timed(&repo, &dialer, ChainChoice::Offline, Timing::default()).await;
    let handle = handle.expect("the manager starts");
    let mut fleet = Vec::new();
    for at in 0..workers {
        // The program ends soon, and with it what this keeps.
        let name: &'static str = Box::leak(format!("w{at}").into_boxed_str());
        let seed = u64::from(FIRST) + u64::from(at);
        let worker = FakeWorker::new(Plan { name, seed, tasks: ALL, stores: false, sealyard: true });
        worker.pretend(FIRST + at);
        dialer.know(&worker);
        attach(&*handle.api(), &worker).await;
        let health = HealthReport { stat: stat(), error: None };
        worker.pulse.health.lock().expect("no panic elsewhere").push((worker.sealing.clone(), health));
        handle.api().worker_connect(worker.url()).await.expect("registered");
        fleet.push(worker);
    }
    let (begun, before) = (Instant::now(), processor_time());
    // What is measured is that nothing happens for so long.
    drop(tokio::time::timeout(span, std::future::pending::<()>()).await);
    let part = (processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let live = handle.api().worker_stats().await.expect("an answer").len();
    assert_eq!(live, usize::from(workers), "all of them are there still");
    handle.stop().await;
    part
}

fn stat() -> FsStat {
    FsStat { capacity: 1 << 40, available: 1 << 40, fs_available: 1 << 40, ..FsStat::default() }
}

async fn attach(manager: &dyn ManagerApi, worker: &FakeWorker) {
    let stanza = StorageStanza { weight: 10, can_seal: true, ..StorageStanza::default() };
    let info =
        StorageInfo { id: worker.sealing.clone(), urls: vec![format!("{}/remote", worker.url())], stanza };
    manager.storage_attach(info, stat()).await.expect("attached");
}

/// Time on processors so far, of all threads of this process, those that have ended among them.
fn processor_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).expect("this process's use");
    let micros = |time: TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
    };
    micros(used.user_time()) + micros(used.system_time())
}
