//! Crash points: places where a test has a process die, named in `sealtasks::recovery`. In a release build they are nothing
//! at all. Never: decides anything.

/// Names the point and a file, as `worker.started@/path/file`: who comes there first makes the file and dies.
pub const VARIABLE: &str = "SEALYARD_CRASH_AT";

/// Dies here as by `kill -9`, in a debug build, if [`VARIABLE`] says so and nobody has died of it yet.
#[inline]
pub fn crash_point(name: &str) {
    #[cfg(debug_assertions)]
    die_at(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
fn die_at(name: &str) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<(String, String)>> = OnceLock::new();
    let read = || {
        let text = std::env::var(VARIABLE).ok()?;
        text.split_once('@').map(|(point, file)| (point.to_owned(), file.to_owned()))
    };
    let Some((point, file)) = WANTED.get_or_init(read) else { return };
    if point == name && std::fs::File::create_new(file).is_ok() {
        // SIGKILL to itself: no handler, no destructor, no flush.
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}
