//! Exit codes and the one place where a failure becomes words.

use std::fmt;
use std::process::ExitCode;

use crate::show::talk;

/// Why the program ends. The numbers are documented in README ("Exit codes") and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something failed that has no code of its own.
    Failed = 1,
    /// The command line cannot be understood; nothing was done.
    Usage = 2,
    /// The repo is in use, exists already, is missing or cannot be read.
    Repo = 3,
    /// The address to listen on is taken or not ours.
    Listen = 4,
    /// The manager does not answer.
    Unreachable = 5,
    /// The token is missing or refused.
    Token = 6,
    /// The manager answered, but could not dial this worker back.
    DialBack = 7,
    /// Manager and worker speak different protocol versions.
    Version = 8,
    /// A setting or value that cannot be used: sector size, actor, resource variable, missing chain.
    Setting = 9,
    /// A storage path cannot be used.
    Storage = 10,
    /// Proof parameters are missing and were not to be fetched.
    Parameters = 11,
    /// Asked for something that is not built.
    NotBuilt = 12,
    /// A task or a proof failed.
    Sealing = 13,
    /// Nothing is known of what was asked about.
    Unknown = 14,
    /// The manager was taken over by another one, or is not the one that this worker serves.
    Overtaken = 15,
}

/// A failure on its way to the terminal: `error[CODE]: text`, the causes, and what to do.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    text: String,
    causes: Vec<String>,
    advice: Option<String>,
    /// Whoever read stdout closed it: the program ends early, and has not failed.
    reader_gone: bool,
}

impl Failure {
    /// A failure in words of our own.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), causes: Vec::new(), advice: None, reader_gone: false }
    }

    /// Whoever read stdout closed it. Travels like a failure, so that everything is cleaned up on the way, and ends as
    /// success.
    pub fn reader_gone() -> Self {
        Self { reader_gone: true, ..Self::new(Code::Failed, "the reader of the output closed it") }
    }

    /// Whether this is the reader's choice rather than a failure.
    pub fn is_reader_gone(&self) -> bool {
        self.reader_gone
    }

    /// A failure from an error with its chain of causes.
    pub fn from_error(code: Code, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
        let mut failure = Self::new(code, error.to_string());
        for cause in causes {
            if !failure.text.contains(&cause) {
                failure.causes.push(cause);
            }
        }
        failure
    }

    /// Adds what to do about it.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// One line, so that it can be found in a log: text, causes, advice.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code as u8, one_line(&self.text))?;
        for cause in &self.causes {
            write!(f, ": {}", one_line(cause))?;
        }
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Text of a library's error on one line, without the excerpt of the file that a TOML parser draws into it.
fn one_line(text: &str) -> String {
    let excerpt =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !excerpt(line));
    lines.collect::<Vec<_>>().join(": ")
}

/// What a command gives back.
pub type Outcome = Result<(), Failure>;

/// Prints the failure, if any, and gives the exit code. A closed pipe is the reader's choice, not a failure.
pub fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.reader_gone => ExitCode::SUCCESS,
        Err(failure) => {
            talk!("{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::from_error(Code::Failed, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_its_cause_draws() {
        let toml =
            "TOML parse error at line 1, column 5\n  |\n1 | [API\n  |     ^\nunclosed table, expected `]`\n";
        let mut failure = Failure::new(Code::Repo, "config.toml is not TOML").advise("correct it");
        failure.causes.push(toml.to_owned());
        let told = "error[3]: config.toml is not TOML: TOML parse error at line 1, column 5: unclosed table, \
                    expected `]`; correct it";
        assert_eq!(failure.to_string(), told);
    }
}
