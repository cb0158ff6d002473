//! How things look on a terminal: bars, sizes, ages, and one file per listing.

mod bars;
mod jobs;
mod sectors;
mod storage;
mod workers;

pub use bars::{age, bar, bytes, clock};
pub use jobs::print_jobs;
pub use sectors::{print_sector, print_sectors, state_of};
pub use storage::{find, print_find, print_storage};
pub use workers::print_workers;

use crate::exit::{Code, Failure, Outcome};

/// Writes one JSON document to stdout, indented, with a newline.
pub fn print_json<T: serde::Serialize>(value: &T) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(Code::Failed, &error))?;
    line(&text)
}

/// Writes one line to stdout. A reader that closed the pipe has seen enough: that is success.
pub fn line(text: &str) -> Outcome {
    use std::io::Write as _;
    match writeln!(anstream::stdout(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(error.into()),
    }
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
