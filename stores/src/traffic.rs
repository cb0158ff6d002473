//! What is being transferred, how fast it may go, and how fast each host has been.
//!
//! Limits can be changed while transfers run: a new bandwidth holds from the next piece on, a new number of downloads from
//! the next that begins. Nothing here touches a file or a socket.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealtasks::{FileType, SectorId};
use tokio::sync::Notify;

/// Downloads at once, at most, whatever is asked for.
pub const PARALLEL_MAX: usize = 256;
/// Connections of one download, at most.
pub const STREAMS_MAX: usize = 16;
/// Connections of one download unless told otherwise: one reads the network while another writes the disk.
pub const STREAMS: usize = 3;
/// Bandwidth that was not used is made up for at most this long afterwards.
const BURST: Duration = Duration::from_millis(100);
/// The span over which a transfer's present rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(4);
/// A host's rate is remembered for so many hosts.
const HOSTS_MAX: usize = 4096;

/// How much may be transferred at once by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLimits {
    /// Bytes per second of all downloads together; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// Downloads at once, 1 to [`PARALLEL_MAX`]; others wait their turn.
    pub parallel: usize,
    /// Connections per download between Sealyards, 1 to [`STREAMS_MAX`]; holds from the next download on.
    pub streams: usize,
    /// Whether every block's BLAKE3 hash is compared.
    pub verify: bool,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { bandwidth: None, parallel: 10, streams: STREAMS, verify: true }
    }
}

impl TransferLimits {
    fn bounded(self) -> Self {
        Self {
            bandwidth: self.bandwidth.map(|rate| rate.max(1)),
            parallel: self.parallel.clamp(1, PARALLEL_MAX),
            streams: self.streams.clamp(1, STREAMS_MAX),
            verify: self.verify,
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferPhase {
    /// Others go first.
    Waiting,
    /// Bytes are coming.
    Receiving,
    /// Everything is here and is made durable.
    Syncing,
}

impl TransferPhase {
    /// Its name for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving => "receiving",
            Self::Syncing => "syncing",
        }
    }
}

/// One download as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferView {
    /// Counts up within the process.
    pub number: u64,
    /// The sector.
    pub sector: SectorId,
    /// The file.
    pub kind: FileType,
    /// Where it comes from; empty while it waits.
    pub url: String,
    /// The storage path that it goes to.
    pub path: PathBuf,
    /// How far it is.
    pub phase: TransferPhase,
    /// Bytes of the whole file, 0 while unknown: a Lotus peer does not say how long a directory is.
    pub bytes_total: u64,
    /// Bytes that are here, those of earlier attempts included.
    pub bytes_done: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Milliseconds since it was asked for.
    pub elapsed_ms: u64,
}

impl TransferView {
    /// Seconds until the rest is here at the present rate; `None` when that cannot be told.
    pub fn eta_seconds(&self) -> Option<u64> {
        let known = self.bytes_total > 0 && self.rate > 0;
        known.then(|| self.bytes_total.saturating_sub(self.bytes_done).div_ceil(self.rate))
    }
}

/// All transfers of a process. Clones share it.
#[derive(Clone)]
pub(crate) struct Traffic(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The bandwidth was changed.
    changed: Condvar,
    /// A download ended, or more may run.
    freed: Notify,
}

struct State {
    limits: TransferLimits,
    running: usize,
    /// When the bytes let through so far would have passed at the present bandwidth.
    paced: Instant,
    numbers: u64,
    live: BTreeMap<u64, Arc<Live>>,
    /// Bytes per second by `host:port`.
    hosts: HashMap<String, u64>,
}

impl Traffic {
    pub(crate) fn new(limits: TransferLimits) -> Self {
        let state = State {
            limits: limits.bounded(),
            running: 0,
            paced: Instant::now(),
            numbers: 0,
            live: BTreeMap::new(),
            hosts: HashMap::new(),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), freed: Notify::new() }))
    }

    pub(crate) fn limits(&self) -> TransferLimits {
        self.state().limits
    }

    /// Out of bounds values are brought within them; what holds from now on is returned.
    pub(crate) fn set_limits(&self, limits: TransferLimits) -> TransferLimits {
        let limits = limits.bounded();
        let mut state = self.state();
        state.limits = limits;
        state.paced = Instant::now();
        drop(state);
        self.0.changed.notify_all();
        self.0.freed.notify_waiters();
        limits
    }

    pub(crate) fn views(&self) -> Vec<TransferView> {
        let live: Vec<_> = self.state().live.iter().map(|(number, live)| (*number, live.clone())).collect();
        live.into_iter().map(|(number, live)| live.view(number)).collect()
    }

    /// Enters a download into the list, waiting.
    pub(crate) fn begin(&self, sector: SectorId, kind: FileType, path: PathBuf) -> Transfer {
        let live = Arc::new(Live {
            sector,
            kind,
            path,
            since: Instant::now(),
            url: Mutex::default(),
            phase: AtomicU8::new(0),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            recent: Mutex::default(),
        });
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        state.live.insert(number, live.clone());
        Transfer { traffic: self.clone(), number, live, runs: false }
    }

    /// Blocks the thread until `bytes` more may pass.
    pub(crate) fn pace(&self, bytes: usize) {
        let mut state = self.state();
        let mut due = None;
        loop {
            let Some(rate) = state.limits.bandwidth else { return };
            let now = Instant::now();
            let due = *due.get_or_insert_with(|| {
                let start = state.paced.max(now.checked_sub(BURST).unwrap_or(now));
                state.paced = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
                state.paced
            });
            // After a change of the bandwidth everyone goes on at once, and the new one counts from there.
            if due <= now || state.paced < due {
                return;
            }
            state = self.0.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What a download from this host brought.
    pub(crate) fn learn(&self, url: &str, bytes: u64, took: Duration) {
        if bytes == 0 {
            // All of it was here from an earlier fetch.
            return;
        }
        let rate = (bytes as f64 / took.as_secs_f64().max(1e-3)) as u64;
        let mut state = self.state();
        if state.hosts.len() >= HOSTS_MAX {
            state.hosts.clear();
        }
        let known = state.hosts.entry(host_of(url)).or_insert(rate);
        *known = known.midpoint(rate);
    }

    /// Nothing came from this host.
    pub(crate) fn blame(&self, url: &str) {
        let mut state = self.state();
        if let Some(rate) = state.hosts.get_mut(&host_of(url)) {
            *rate /= 2;
        }
    }

    /// What is to be expected of a host (bytes per second): its own rate, or of an unknown one the best that is known, so
    /// that each is tried.
    pub(crate) fn expected(&self, url: &str) -> u64 {
        let state = self.state();
        let best = || state.hosts.values().copied().max().unwrap_or(0);
        state.hosts.get(&host_of(url)).copied().unwrap_or_else(best)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

/// A download in the list; it leaves the list, and frees its place, when dropped.
pub(crate) struct Transfer {
    traffic: Traffic,
    number: u64,
    live: Arc<Live>,
    runs: bool,
}

impl Transfer {
    /// Waits until fewer downloads run than may.
    pub(crate) async fn wait_turn(&mut self) {
        loop {
            let freed = self.traffic.0.freed.notified();
            let mut freed = std::pin::pin!(freed);
            // Before looking: what is freed from here on is not missed.
            freed.as_mut().enable();
            {
                let mut state = self.traffic.state();
                if state.running < state.limits.parallel {
                    state.running += 1;
                    self.runs = true;
                    return;
                }
            }
            freed.await;
        }
    }

    /// What the threads of this download report to.
    pub(crate) fn progress(&self) -> Progress {
        Progress(self.live.clone())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.traffic.state();
        state.live.remove(&self.number);
        if self.runs {
            state.running -= 1;
        }
        drop(state);
        // A waiter that was dropped meanwhile must not swallow the only call.
        self.traffic.0.freed.notify_waiters();
    }
}

struct Live {
    sector: SectorId,
    kind: FileType,
    path: PathBuf,
    since: Instant,
    url: Mutex<String>,
    phase: AtomicU8,
    total: AtomicU64,
    done: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// Since when `bytes` came.
    began: Option<Instant>,
    bytes: u64,
    /// The rate of the span before.
    rate: u64,
}

impl Live {
    fn view(&self, number: u64) -> TransferView {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let present = recent.began.map(|began| (began.elapsed(), recent.bytes));
        let rate = match present {
            Some((took, bytes)) if recent.rate == 0 || took >= RATE_SPAN => {
                (bytes as f64 / took.as_secs_f64().max(1e-3)) as u64
            }
            Some(_) => recent.rate,
            None => 0,
        };
        TransferView {
            number,
            sector: self.sector,
            kind: self.kind,
            url: self.url.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            path: self.path.clone(),
            phase: match self.phase.load(Ordering::Relaxed) {
                0 => TransferPhase::Waiting,
                1 => TransferPhase::Receiving,
                _ => TransferPhase::Syncing,
            },
            bytes_total: self.total.load(Ordering::Relaxed),
            bytes_done: self.done.load(Ordering::Relaxed),
            rate,
            elapsed_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Where a download's threads report what came. Clones share it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Live>);

impl Progress {
    /// Bytes come from here now, `done` of `total` are here already.
    pub(crate) fn receives(&self, url: &str, total: u64, done: u64) {
        url.clone_into(&mut self.0.url.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.total.store(total, Ordering::Relaxed);
        self.0.done.store(done, Ordering::Relaxed);
        self.0.phase.store(1, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
        let mut recent = self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let took = recent.began.get_or_insert_with(Instant::now).elapsed();
        recent.bytes += bytes;
        if took >= RATE_SPAN {
            let rate = (recent.bytes as f64 / took.as_secs_f64()) as u64;
            *recent = Recent { began: Some(Instant::now()), bytes: 0, rate };
        }
    }

    /// Bytes that came but did not count: they are asked for again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.0.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn syncs(&self) {
        self.0.phase.store(2, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(traffic: &Traffic) -> Transfer {
        traffic.begin(SectorId::new(1000, 1), FileType::Sealed, PathBuf::from("/p"))
    }

    #[tokio::test]
    async fn a_raised_limit_lets_waiting_downloads_begin() {
        let traffic = Traffic::new(TransferLimits { parallel: 1, ..TransferLimits::default() });
        let (mut first, mut second, mut third) = (begin(&traffic), begin(&traffic), begin(&traffic));
        first.wait_turn().await;
        let waiting = tokio::spawn(async move {
            second.wait_turn().await;
            second
        });
        assert_eq!(traffic.views().len(), 3);
        traffic.set_limits(TransferLimits { parallel: 2, ..traffic.limits() });
        let second = waiting.await.expect("its turn came");
        traffic.set_limits(TransferLimits { parallel: 1, ..traffic.limits() });
        drop(first);
        let waiting = tokio::spawn(async move { third.wait_turn().await });
        drop(second);
        waiting.await.expect("both have gone");
        assert!(traffic.views().is_empty());
    }

    #[test]
    fn a_lifted_bandwidth_ends_the_wait_of_a_slow_download() {
        let traffic = Traffic::new(TransferLimits { bandwidth: Some(1), ..TransferLimits::default() });
        let slow = traffic.clone();
        // At one byte per second this would take eleven days.
        let thread = std::thread::spawn(move || slow.pace(1_000_000));
        while traffic.state().paced < Instant::now() + Duration::from_secs(1000) && !thread.is_finished() {
            std::thread::yield_now();
        }
        traffic.set_limits(TransferLimits { bandwidth: None, ..traffic.limits() });
        thread.join().expect("it went on");
    }

    #[test]
    fn hosts_are_ranked_by_what_they_brought() {
        let traffic = Traffic::new(TransferLimits::default());
        assert_eq!(traffic.expected("http://new:1/remote"), 0);
        traffic.learn("http://fast:1/remote/sealed/s-t01000-1", 1000, Duration::from_secs(1));
        traffic.learn("http://slow:1/remote", 10, Duration::from_secs(1));
        assert_eq!(traffic.expected("http://new:1/x"), 1000, "tried before the slow one");
        assert_eq!(traffic.expected("http://slow:1/y"), 10);
        traffic.blame("http://fast:1/z");
        assert_eq!(traffic.expected("http://fast:1/z"), 500);
    }

    #[test]
    fn the_rest_takes_as_long_as_the_rate_says() {
        let transfer = begin(&Traffic::new(TransferLimits::default()));
        let progress = transfer.progress();
        progress.receives("http://a:1/remote", 1000, 100);
        progress.add(200);
        progress.take_back(50);
        let view = transfer.traffic.views().pop().expect("it is listed");
        assert_eq!((view.bytes_done, view.bytes_total, view.phase), (250, 1000, TransferPhase::Receiving));
        assert_eq!(TransferView { rate: 100, ..view.clone() }.eta_seconds(), Some(8));
        assert_eq!(TransferView { rate: 0, ..view }.eta_seconds(), None);
    }
}
