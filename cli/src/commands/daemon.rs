//! What `run` and `worker run` share: an address to listen on, serving a router, and reasons to stop.

use axum::Router;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rpc::Identity;
use rpc::server::Bounds;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use worker::WorkerHandle;

use crate::exit::{Code, Failure};
use crate::show::talk;

/// Binds, or says what to do.
pub async fn bind(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(Code::Listen, format!("cannot listen on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => failure
                .advise("another program has that port; stop it, or choose another address with --listen"),
            _ => failure.advise("give an address of this machine as HOST:PORT"),
        }
    })
}

/// Serves until the returned handle is aborted; with an identity TLS alone.
pub fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Identity>,
) -> tokio::task::JoinHandle<std::io::Result<()>> {
    open_more_files();
    tokio::spawn(rpc::server::serve(listener, router, tls, Bounds::of_this_process()))
}

/// Files that may be open at once; more are never needed, and some programs that ours start look at each.
const OPEN_FILES_MAX: u64 = 1 << 16;

/// Takes the open files that the operating system grants, as Go's programs do: many systems begin with 1024.
fn open_more_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES_MAX).max(soft), hard)
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// What asked this process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Ctrl-C or SIGTERM: most often it is started anew, so executors are left running.
    Signal(&'static str),
    /// Whoever started it has ended and must leave nothing behind.
    StdinClosed,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signal(name) => name,
            Self::StdinClosed => "the program that started this one ended",
        })
    }
}

/// Waits for Ctrl-C, SIGTERM, or, if asked, the end of standard input.
pub async fn stop_requested(until_stdin_closes: bool) -> Why {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Why::Signal("interrupted"),
        () = terminated => Why::Signal("terminated"),
        () = stdin_closed(), if until_stdin_closes => Why::StdinClosed,
    }
}

/// Ends the worker of this process as the reason asks for.
pub async fn end_worker(worker: &WorkerHandle, why: Why) {
    match why {
        Why::Signal(_) => match worker.leave().await {
            0 => {}
            1 => talk!("1 executor runs on; the worker that is started next on this repo takes it over"),
            more => {
                talk!(
                    "{more} executors run on; the worker that is started next on this repo takes them over"
                );
            }
        },
        Why::StdinClosed => {
            worker.stop_now().await;
        }
    }
}

/// Returns when standard input has ended.
pub async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 256];
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// A duration such as `30m`, `2s`, `1h30m`.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, Failure> {
    let bad = || {
        Failure::new(Code::Usage, format!("{text:?} is no duration"))
            .advise("write for example 30m, 90s or 1h30m")
    };
    let mut seconds: u64 = 0;
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(bad()),
        };
        let count: u64 = digits.parse().map_err(|_| bad())?;
        seconds = count.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(bad)?;
        digits.clear();
    }
    if digits.is_empty() && !text.is_empty() {
        Ok(std::time::Duration::from_secs(seconds))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units() {
        assert_eq!(parse_duration("30m").ok(), Some(std::time::Duration::from_secs(1800)));
        assert_eq!(parse_duration("1h30m").ok(), Some(std::time::Duration::from_secs(5400)));
        for bad in ["", "30", "m", "3d", "-1s", "99999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
