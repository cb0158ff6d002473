//! Crash points: places where a test has a process die, stand still or dwell, named in `sealtasks::recovery`. In a release
//! build they are nothing at all. Never: decides anything.

/// A variable names a point and a file, as `worker.started@/path/file`: who comes there first makes the file and dies as by
/// `kill -9` (`SEALYARD_CRASH_AT`), or stands still as by SIGSTOP (`SEALYARD_STOP_AT`), so that nobody hears of it before the
/// power is cut. `worker.started/SealCommit1` is the point within that deed alone, and `worker.started:3` whoever comes there
/// for the third time. `SEALYARD_SLOW_AT=executor.begun:300,executor.worked:200`: whoever comes there dwells for so many
/// milliseconds, so that a task is met at work that takes a few.
#[inline]
pub fn crash_point(name: &str) {
    #[cfg(debug_assertions)]
    wanted::come_to(name, None);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// The same where the point is one of many deeds.
#[inline]
pub fn crash_point_of(name: &str, deed: &str) {
    #[cfg(debug_assertions)]
    wanted::come_to(name, Some(deed));
    #[cfg(not(debug_assertions))]
    let _ = (name, deed);
}

#[cfg(debug_assertions)]
mod wanted {
    use std::fs::File;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    /// What becomes of who comes there. SIGKILL: no handler, no destructor, no flush.
    const VARIABLES: [(&str, Signal); 2] =
        [("SEALYARD_CRASH_AT", Signal::SIGKILL), ("SEALYARD_STOP_AT", Signal::SIGSTOP)];

    #[derive(Debug, PartialEq, Eq)]
    struct Wanted {
        point: String,
        deed: Option<String>,
        /// From 1.
        passage: u64,
        file: String,
        signal: Signal,
    }

    pub(super) fn come_to(name: &str, deed: Option<&str>) {
        dwell(name);
        static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let read = |(variable, signal)| Wanted::parse(&std::env::var(variable).ok()?, signal);
        let wanted = WANTED.get_or_init(|| VARIABLES.into_iter().find_map(read));
        let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.means(name, deed)) else { return };
        // Threads come side by side: one of them gets each number, and one makes the file.
        if PASSED.fetch_add(1, Ordering::Relaxed) + 1 >= wanted.passage
            && File::create_new(&wanted.file).is_ok()
        {
            let _ = kill(getpid(), wanted.signal);
            // A process that is to stand still does so a moment later; this thread goes no further.
            if wanted.signal == Signal::SIGSTOP {
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn dwell(name: &str) {
        static SLOW: OnceLock<Vec<(String, Duration)>> = OnceLock::new();
        let read = || std::env::var("SEALYARD_SLOW_AT").map(|text| slow(&text)).unwrap_or_default();
        let mut found = SLOW.get_or_init(read).iter().filter(|(point, _)| point == name);
        if let Some((_, span)) = found.next() {
            std::thread::sleep(*span);
        }
    }

    fn slow(text: &str) -> Vec<(String, Duration)> {
        let one = |part: &str| {
            let (point, millis) = part.split_once(':')?;
            Some((point.to_owned(), Duration::from_millis(millis.parse().ok()?)))
        };
        text.split(',').filter_map(one).collect()
    }

    impl Wanted {
        fn parse(text: &str, signal: Signal) -> Option<Self> {
            let (wanted, file) = text.split_once('@')?;
            let (wanted, passage) = match wanted.split_once(':') {
                Some((wanted, passage)) => (wanted, passage.parse().ok()?),
                None => (wanted, 1),
            };
            let (point, deed) = match wanted.split_once('/') {
                Some((point, deed)) => (point, Some(deed.to_owned())),
                None => (wanted, None),
            };
            Some(Self { point: point.to_owned(), deed, passage, file: file.to_owned(), signal })
        }

        fn means(&self, name: &str, deed: Option<&str>) -> bool {
            self.point == name && self.deed.as_deref().is_none_or(|wanted| deed == Some(wanted))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_wish_names_a_point_perhaps_a_deed_and_a_passage_and_a_file() {
            let wanted = |deed: Option<&str>, passage| Wanted {
                point: "worker.ended".into(),
                deed: deed.map(str::to_owned),
                passage,
                file: "/a/b:1@c".into(),
                signal: Signal::SIGKILL,
            };
            let parse = |text| Wanted::parse(text, Signal::SIGKILL);
            assert_eq!(parse("worker.ended@/a/b:1@c"), Some(wanted(None, 1)));
            assert_eq!(parse("worker.ended:3@/a/b:1@c"), Some(wanted(None, 3)));
            assert_eq!(parse("worker.ended/Fetch:2@/a/b:1@c"), Some(wanted(Some("Fetch"), 2)));
            assert_eq!(parse("worker.ended:x@/a"), None);
            assert_eq!(parse("worker.ended"), None);
        }

        #[test]
        fn a_wish_to_dwell_names_points_and_milliseconds() {
            let wanted = [("executor.begun", 300), ("executor.worked", 20)];
            let wanted = wanted.map(|(point, millis)| (point.to_owned(), Duration::from_millis(millis)));
            assert_eq!(slow("executor.begun:300,executor.worked:20"), wanted);
            assert_eq!(slow("executor.begun,:3x"), []);
        }

        #[test]
        fn a_point_without_a_deed_is_met_in_each() {
            let wanted = |text| Wanted::parse(text, Signal::SIGKILL).expect("a wish");
            let (any, fetch) = (wanted("worker.ended@f"), wanted("worker.ended/Fetch@f"));
            assert!(any.means("worker.ended", None) && any.means("worker.ended", Some("Fetch")));
            assert!(fetch.means("worker.ended", Some("Fetch")));
            assert!(!fetch.means("worker.ended", Some("MoveStorage")) && !fetch.means("worker.ended", None));
            assert!(!any.means("worker.declared", None));
        }
    }
}
