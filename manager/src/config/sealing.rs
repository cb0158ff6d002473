//! `[sealing]`: what the manager pledges by itself, how far, and how many sectors may be in each stage.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline::{SectorState, StopAfter};
use toml::{Table, Value};

use super::{ConfigError, nearest, wrong};

/// More than this is no pipeline that anybody looks at.
const SECTORS_MAX: u32 = 100_000;

/// How the manager fills its pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Sectors that are kept in the pipeline; 0: none are pledged but by hand.
    pub keep_in_pipeline: u32,
    /// Where sectors stop that the manager begins by itself, or for data.
    pub stop_at: Option<StopAfter>,
    /// With more sectors than this that wait for an operator nothing is pledged by itself.
    pub parked_max: u32,
    /// Sectors whose task may wait or run in a state at once; a state that is not here has no limit.
    pub in_flight: BTreeMap<SectorState, u32>,
    /// Bytes of data that may wait to be written into sectors.
    pub staging_max: u64,
}

const KEYS: [&str; 5] = ["keep_in_pipeline", "stop_at", "parked_max", "in_flight", "staging_max_gib"];

/// The states that run tasks.
const STAGES: [SectorState; 6] = [
    SectorState::AddPiece,
    SectorState::Packing,
    SectorState::PreCommit1,
    SectorState::PreCommit2,
    SectorState::Committing,
    SectorState::FinalizeSector,
];

impl Default for Sealing {
    fn default() -> Self {
        Self {
            keep_in_pipeline: 0,
            stop_at: None,
            parked_max: 3,
            in_flight: BTreeMap::new(),
            staging_max: 256 << 30,
        }
    }
}

impl Sealing {
    /// Takes one key of `[sealing]`.
    pub(super) fn set(&mut self, path: &Path, key: &str, value: &Value) -> Result<(), ConfigError> {
        match key {
            "keep_in_pipeline" => self.keep_in_pipeline = count(path, key, value)?,
            "parked_max" => self.parked_max = count(path, key, value)?,
            "stop_at" => {
                self.stop_at = match value.as_str() {
                    Some("") => None,
                    Some("pc2") => Some(StopAfter::Pc2),
                    Some("c1") => Some(StopAfter::C1),
                    Some(_) | None => {
                        return Err(wrong(path, key, value, "\"pc2\", \"c1\", or \"\" for proving"));
                    }
                }
            }
            "staging_max_gib" => {
                let gib = u64::from(count(path, key, value)?);
                self.staging_max = gib << 30;
            }
            "in_flight" => {
                let section = value
                    .as_table()
                    .ok_or_else(|| wrong(path, key, value, "a section of its own, [sealing.in_flight]"))?;
                self.in_flight = limits(path, section)?;
            }
            unknown => return Err(unknown_key(path, unknown, &KEYS)),
        }
        Ok(())
    }
}

fn limits(path: &Path, section: &Table) -> Result<BTreeMap<SectorState, u32>, ConfigError> {
    let names = STAGES.map(SectorState::name);
    let mut limits = BTreeMap::new();
    for (name, value) in section {
        let state = STAGES.into_iter().find(|state| state.name() == name.as_str());
        let state = state.ok_or_else(|| unknown_key(path, name, &names))?;
        let most = count(path, &format!("in_flight.{name}"), value)?;
        if most > 0 {
            limits.insert(state, most);
        }
    }
    Ok(limits)
}

fn count(path: &Path, key: &str, value: &Value) -> Result<u32, ConfigError> {
    let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| *number <= SECTORS_MAX)
        .ok_or_else(|| wrong(path, key, value, "a number from 0 to 100000"))
}

pub(super) fn unknown_key(path: &Path, key: &str, known: &[&str]) -> ConfigError {
    ConfigError::UnknownKey { path: path.to_owned(), key: key.to_owned(), nearest: nearest(key, known) }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Sealing, ConfigError> {
        Config::parse(Path::new("config.toml"), text).map(|config| config.sealing)
    }

    #[test]
    fn the_pipeline_is_kept_as_the_file_says() {
        let text =
            "[sealing]\nkeep_in_pipeline = 10\nstop_at = \"pc2\"\n[sealing.in_flight]\nPreCommit1 = 2\n";
        let sealing = parse(text).expect("a good file");
        assert_eq!((sealing.keep_in_pipeline, sealing.stop_at), (10, Some(StopAfter::Pc2)));
        assert_eq!(sealing.in_flight, BTreeMap::from([(SectorState::PreCommit1, 2)]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words) in [
            ("[sealing]\nstop_at = \"pc3\"", "\"pc2\", \"c1\""),
            ("[sealing]\nkeep_in_pipelin = 3", "did you mean keep_in_pipeline?"),
            ("[sealing]\nkeep_in_pipeline = -1", "0 to 100000"),
            ("[sealing.in_flight]\nProving = 3", "unknown key Proving"),
            ("[Sealing]\nstop_at = \"pc2\"", "did you mean sealing?"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
