//! What is being transferred, how fast it may go, and how fast each host has been.
//!
//! Limits can be changed while transfers run: a new bandwidth holds from the next piece on, a new number of downloads from
//! the next that begins. Nothing here touches a file or a socket.

mod hosts;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealtasks::{FileType, SectorId, StorageId, TransferLimits, TransferPhase, TransferView, eta_seconds};
use tokio::sync::Notify;

use hosts::Hosts;

/// Bandwidth that was not used is made up for at most this long afterwards.
const BURST: Duration = Duration::from_millis(100);
/// The span over which a transfer's present rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(4);
/// A thread that is held back looks so often whether anybody still waits for its bytes.
const GONE_CHECK: Duration = Duration::from_millis(500);

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
    hosts: Hosts,
}

impl Traffic {
    pub(crate) fn new(limits: TransferLimits) -> Self {
        let state = State {
            limits: limits.bounded(),
            running: 0,
            paced: Instant::now(),
            numbers: 0,
            live: BTreeMap::new(),
            hosts: Hosts::default(),
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
    pub(crate) fn begin(&self, sector: SectorId, kind: FileType, to: StorageId, path: PathBuf) -> Transfer {
        let live = Arc::new(Live {
            sector,
            kind,
            to,
            path,
            since: Instant::now(),
            origin: Mutex::default(),
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

    /// Blocks the thread until `bytes` more may pass, or `gone` says that nobody waits for them any more.
    pub(crate) fn pace(&self, bytes: usize, gone: impl Fn() -> bool) {
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
            if due <= now || state.paced < due || gone() {
                return;
            }
            let wait = (due - now).min(GONE_CHECK);
            state = self.0.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What a download from this host brought.
    pub(crate) fn learn(&self, url: &str, bytes: u64, took: Duration) {
        self.state().hosts.learn(url, bytes, took);
    }

    /// Nothing came from this host.
    pub(crate) fn blame(&self, url: &str) {
        self.state().hosts.blame(url, Instant::now());
    }

    /// What is to be expected of a host (bytes per second).
    pub(crate) fn expected(&self, url: &str) -> u64 {
        self.state().hosts.expected(url, Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single step: a panic elsewhere leaves it whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    to: StorageId,
    path: PathBuf,
    since: Instant,
    /// The storage path it comes from, and its URL there.
    origin: Mutex<(String, String)>,
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
        let (from, url) = self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        TransferView {
            number,
            sector: self.sector,
            kind: self.kind,
            from,
            url,
            to: self.to.to_string(),
            path: self.path.clone(),
            phase: match self.phase.load(Ordering::Relaxed) {
                0 => TransferPhase::Waiting,
                1 => TransferPhase::Receiving,
                _ => TransferPhase::Syncing,
            },
            bytes_total: total,
            bytes_done: done,
            rate,
            elapsed_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            eta_s: eta_seconds(done, total, rate),
        }
    }
}

/// Where a download's threads report what came. Clones share it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Live>);

impl Progress {
    /// Bytes come from here now, `done` of `total` are here already.
    pub(crate) fn receives(&self, (holder, url): (&str, &str), total: u64, done: u64) {
        let origin = (holder.to_owned(), url.to_owned());
        *self.0.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin;
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
        let to = "p".parse().expect("an id");
        traffic.begin(SectorId::new(1000, 1), FileType::Sealed, to, PathBuf::from("/p"))
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

    /// A thread that waits for a gigabyte at one megabyte a second, and what says that nobody waits for it.
    fn slow_one(traffic: &Traffic) -> (std::thread::JoinHandle<()>, Arc<AtomicU8>) {
        let gone = Arc::new(AtomicU8::new(0));
        let (slow, told) = (traffic.clone(), gone.clone());
        let thread = std::thread::spawn(move || slow.pace(1 << 30, || told.load(Ordering::SeqCst) > 0));
        while traffic.state().paced < Instant::now() + Duration::from_secs(900) && !thread.is_finished() {
            std::thread::yield_now();
        }
        (thread, gone)
    }

    #[test]
    fn a_lifted_bandwidth_ends_the_wait_of_a_slow_download() {
        let traffic = Traffic::new(TransferLimits { bandwidth: Some(1), ..TransferLimits::default() });
        let (thread, _) = slow_one(&traffic);
        traffic.set_limits(TransferLimits { bandwidth: None, ..traffic.limits() });
        thread.join().expect("it went on");
    }

    #[test]
    fn a_slow_download_that_nobody_waits_for_ends() {
        let traffic = Traffic::new(TransferLimits { bandwidth: Some(1), ..TransferLimits::default() });
        let (thread, gone) = slow_one(&traffic);
        assert!(!thread.is_finished());
        gone.store(1, Ordering::SeqCst);
        thread.join().expect("it ended");
    }

    #[test]
    fn a_view_tells_how_far_it_is() {
        let transfer = begin(&Traffic::new(TransferLimits::default()));
        let progress = transfer.progress();
        progress.receives(("a", "http://a:1/remote"), 1000, 100);
        progress.add(200);
        progress.take_back(50);
        let view = transfer.traffic.views().pop().expect("it is listed");
        assert_eq!((view.bytes_done, view.bytes_total, view.phase), (250, 1000, TransferPhase::Receiving));
        assert_eq!((&*view.from, &*view.to), ("a", "p"));
        assert_eq!(view.eta_s, eta_seconds(250, 1000, view.rate));
    }
}
