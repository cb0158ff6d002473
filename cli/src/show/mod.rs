//! How things look on a terminal: bars, sizes, ages, and one file per listing.

mod bars;
mod caps;
mod jobs;
mod places;
mod schedule;
mod sectors;
mod storage;
mod stored;
mod transfers;
mod why;
mod workers;

pub use bars::{age, bar, bytes, clock};
pub use caps::print_caps;
pub use jobs::print_jobs;
pub use places::{FoundSector, find, print_around, print_find, print_older};
pub use schedule::{print_durations, print_schedule};
pub use sectors::{print_sector, print_sectors, print_state, state_of};
pub use storage::print_storage;
pub use stored::{
    lock_words, print_cleaned, print_differences, print_locks, print_stored, print_stored_head, print_surveys,
};
pub use transfers::{fetch_words, print_transfers};
pub use why::{brief, print_explanation};
pub use workers::{mark_rehearsal, print_workers};

use crate::exit::{Code, Failure, Outcome};

/// Writes one JSON document to stdout, indented, with a newline.
pub fn print_json<T: serde::Serialize>(value: &T) -> Outcome {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(Code::Failed, &error))?;
    line(&text)
}

/// Writes one line to stdout. A reader that closed the pipe has seen enough: that ends as success.
pub fn line(text: &str) -> Outcome {
    raw(&format!("{text}\n"))
}

/// Writes text to stdout as it is.
pub fn raw(text: &str) -> Outcome {
    use std::io::Write as _;
    let mut stdout = anstream::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::new(Code::Failed, format!("standard output cannot be written: {error}")),
    })
}

/// Text from elsewhere, such as a worker's name, on one line: control characters, which could move the cursor or end
/// the line, are shown and not sent.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Says a line to the person, on stderr. That nobody listens is no reason to stop: a daemon outlives the pipe of its
/// log, where the standard macro would panic.
macro_rules! talk {
    ($($words:tt)*) => {
        $crate::show::say(&format!($($words)*))
    };
}
pub(crate) use talk;

/// What [`talk!`] does.
pub fn say(text: &str) {
    use std::io::Write as _;
    let _ = anstream::stderr().write_all(format!("{text}\n").as_bytes());
}

/// ANSI colours in Lotus's meanings; `anstream` strips them where the output is no terminal.
pub mod paint {
    /// Wraps text in a colour.
    fn wrap(code: &str, text: &str) -> String {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
    /// Good, local, own.
    pub fn green(text: &str) -> String {
        wrap("32", text)
    }
    /// Under way, nearly full.
    pub fn yellow(text: &str) -> String {
        wrap("33", text)
    }
    /// Failed, full, disabled.
    pub fn red(text: &str) -> String {
        wrap("31", text)
    }
    /// Names.
    pub fn blue(text: &str) -> String {
        wrap("34", text)
    }
    /// Hosts, sealing.
    pub fn magenta(text: &str) -> String {
        wrap("35", text)
    }
    /// Storing.
    pub fn cyan(text: &str) -> String {
        wrap("36", text)
    }
}
