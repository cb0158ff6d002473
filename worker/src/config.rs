//! The worker's `config.toml`: settings per executor, and the certificate files, which flags may name as well. Never: other
//! settings that are flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealtasks::{SealingPlan, TaskType};
use toml::{Table, Value};

use crate::confine::Confinement;

/// Variables for the executors of one task type.
pub type Variables = BTreeMap<String, String>;

/// Longest `config.toml` that is read, in bytes.
const LENGTH_MAX: u64 = 1 << 20;

/// What `config.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[executor] spare`: whether executors are started ahead of the tasks that they will do.
    pub spare: bool,
    /// `[executor.<short code>.env]`: variables set, or overridden, for the executors of that task.
    pub executor_environment: BTreeMap<TaskType, Variables>,
    /// `[executor.<short code>]` `cpus` and `memory`: where the executors of that task may run, and how large they may be.
    pub confinement: BTreeMap<TaskType, Confinement>,
    /// `[tls] certificate`: a PEM file with the worker's certificate and its chain, below the repo unless absolute.
    pub certificate: Option<PathBuf>,
    /// `[tls] private_key`: its key.
    pub private_key: Option<PathBuf>,
    /// `[tls] ca_file`: certificate authorities that are believed besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// `[[sealing_thread]]`, in their order.
    pub sealing_threads: Vec<SealingThread>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            spare: true,
            executor_environment: BTreeMap::new(),
            confinement: BTreeMap::new(),
            certificate: None,
            private_key: None,
            ca_file: None,
            sealing_threads: Vec::new(),
        }
    }
}

/// A `[[sealing_thread]]`: a storage path for sealing whose plan may change while the worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingThread {
    /// The path's directory; below the repo unless absolute.
    pub location: PathBuf,
    /// Which sectors may begin there; `None` = as the worker's own plan.
    pub plan: Option<SealingPlan>,
}

/// More threads are not read: no machine has so many disks to seal on.
const THREADS_MAX: usize = 256;

impl Config {
    /// What a new repo's `config.toml` says: everything commented out.
    pub const DEFAULTS: &'static str = "\
# Settings of this worker. Lines that begin with # show what is possible.

# Variables for the executors of one task (ap, dc, pc1, pc2, c1, c2, fin, fus, uns), over those of the worker's own
# environment. Values are texts, in quotes.
#[executor.pc1.env]
#FIL_PROOFS_USE_MULTICORE_SDR = \"1\"
#
#[executor.c2.env]
#CUDA_VISIBLE_DEVICES = \"0\"

# Whether two executors are started ahead, so that tasks of sectors up to 512 MiB begin at once. Each takes about 4 MiB.
#[executor]
#spare = true

# Where the executors of one task run. cpus: l3 (one whole group that shares an L3 cache for each, which no other worker of
# this machine uses if one is left), node0 (a NUMA node's CPUs, whose memory they then use first) or a list such as
# 0-7,64-71. CPUs that are not there are logged once and done without. memory: a limit, by a control group of version 1 or 2;
# where it cannot be given the worker does not start. Under systemd it takes Delegate=memory and
# DelegateSubgroup=sealyard-worker.
#[executor.pc1]
#cpus = \"l3\"
#memory = \"72GiB\"

# Serve https, and nothing else, with this certificate (PEM, its chain behind it) and its key; both are read again when
# they change. ca_file: authorities that are believed besides the machine's, read at the start. Paths below this
# directory may be relative.
#[tls]
#certificate = \"worker.pem\"
#private_key = \"worker.key\"
#ca_file = \"ca.pem\"

# Which sectors may begin in a storage path for sealing: sealer (new ones), rebuild (those whose files are lost), any, none.
# What has begun there is finished. A config.toml in that directory with a line such as plan = \"rebuild\" counts instead,
# as long as it is there; it may change while the worker runs, and is read before each new sector.
#[[sealing_thread]]
#location = \"/mnt/nvme1\"
#plan = \"sealer\"
";

    /// Reads `path`.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or has a key that means nothing (with the nearest one that does).
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&text_of(path)?)
    }

    /// Reads the `config.toml` in the location of a sealing thread: its plan, if it says one.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_thread(path: &Path) -> Result<Option<SealingPlan>, ConfigError> {
        let root = table_of(&text_of(path)?)?;
        if let Some(key) = root.keys().find(|key| *key != "plan") {
            return Err(unknown(key, ["plan".to_owned()]));
        }
        root.get("plan").map(|value| plan_of("plan", value)).transpose()
    }

    /// Parses the text of a `config.toml`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let root = table_of(text)?;
        let mut config = Self::default();
        for (key, value) in &root {
            match key.as_str() {
                "executor" => {}
                "tls" => {
                    config.set_tls(table(key, value)?)?;
                    continue;
                }
                "sealing_thread" => {
                    config.set_threads(key, value)?;
                    continue;
                }
                _ => return Err(unknown(key, ["executor", "sealing_thread", "tls"].map(str::to_owned))),
            }
            for (task, section) in table(key, value)? {
                if task == "spare" {
                    let key = format!("{key}.{task}");
                    let wrong = ConfigError::Kind { key, expected: "true or false" };
                    config.spare = section.as_bool().ok_or(wrong)?;
                    continue;
                }
                let at = format!("executor.{task}");
                let kind = executor_task(task, &at)?;
                for (name, value) in table(&at, section)? {
                    config.set_executor(kind, &format!("{at}.{name}"), name, value)?;
                }
            }
        }
        Ok(config)
    }
}

impl Config {
    fn set_executor(
        &mut self,
        task: TaskType,
        key: &str,
        name: &str,
        value: &Value,
    ) -> Result<(), ConfigError> {
        let at = key.strip_suffix(name).unwrap_or(key);
        let wrong = |expected| ConfigError::Kind { key: key.to_owned(), expected };
        match name {
            "env" => {
                self.executor_environment.insert(task, variables_of(key, value)?);
            }
            "cpus" => {
                let choice = value.as_str().and_then(|text| text.parse().ok());
                let choice =
                    choice.ok_or_else(|| wrong("l3, node0 or a list such as 0-7,64-71, in quotes"))?;
                self.confinement.entry(task).or_default().cpus = Some(choice);
            }
            "memory" => {
                let bytes = value.as_str().and_then(bytes_of);
                let bytes = bytes.ok_or_else(|| wrong("a size such as 72GiB, in quotes"))?;
                self.confinement.entry(task).or_default().memory = Some(bytes);
            }
            _ => return Err(unknown(key, ["env", "cpus", "memory"].map(|known| format!("{at}{known}")))),
        }
        Ok(())
    }

    fn set_threads(&mut self, key: &str, value: &Value) -> Result<(), ConfigError> {
        let wrong = |key: String, expected| ConfigError::Kind { key, expected };
        let blocks = value.as_array().filter(|blocks| blocks.len() <= THREADS_MAX);
        let blocks = blocks.ok_or_else(|| wrong(key.to_owned(), "at most 256 blocks [[sealing_thread]]"))?;
        for (block, number) in blocks.iter().zip(1..) {
            let at = format!("{key} {number}");
            let (mut location, mut plan) = (None, None);
            for (name, value) in table(&at, block)? {
                let key = format!("{at}: {name}");
                match name.as_str() {
                    "location" => {
                        let text = value.as_str().filter(|text| !text.is_empty());
                        let text = text.ok_or_else(|| wrong(key, "a directory in quotes"))?;
                        location = Some(PathBuf::from(text));
                    }
                    "plan" => plan = Some(plan_of(&key, value)?),
                    _ => {
                        return Err(unknown(
                            &key,
                            ["location", "plan"].map(|known| format!("{at}: {known}")),
                        ));
                    }
                }
            }
            let location = location.ok_or_else(|| wrong(format!("{at}: location"), "given"))?;
            self.sealing_threads.push(SealingThread { location, plan });
        }
        Ok(())
    }

    fn set_tls(&mut self, section: &Table) -> Result<(), ConfigError> {
        for (name, value) in section {
            let key = format!("tls.{name}");
            let file = match name.as_str() {
                "certificate" => &mut self.certificate,
                "private_key" => &mut self.private_key,
                "ca_file" => &mut self.ca_file,
                _ => {
                    let known = ["tls.certificate", "tls.private_key", "tls.ca_file"];
                    return Err(unknown(&key, known.map(str::to_owned)));
                }
            };
            let Value::String(text) = value else {
                return Err(ConfigError::Kind { key, expected: "a file's path in quotes" });
            };
            *file = Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
        }
        Ok(())
    }
}

/// What a settings file says.
fn text_of(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > LENGTH_MAX {
        return Err(ConfigError::Length { path: path.to_owned(), length });
    }
    std::fs::read_to_string(path).map_err(io)
}

fn table_of(text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|source| ConfigError::Syntax { source: Box::new(source) })
}

fn plan_of(key: &str, value: &Value) -> Result<SealingPlan, ConfigError> {
    let plan = value.as_str().and_then(|text| text.parse().ok());
    let expected = "any, sealer, rebuild or none, in quotes";
    plan.ok_or_else(|| ConfigError::Kind { key: key.to_owned(), expected })
}

/// `72GiB` in bytes; at least a MiB.
fn bytes_of(text: &str) -> Option<u64> {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim(), *shift)))?;
    digits.parse::<u64>().ok().filter(|count| *count > 0)?.checked_mul(1 << shift)
}

fn executor_task(short: &str, at: &str) -> Result<TaskType, ConfigError> {
    let known = |task: &&TaskType| task.short().to_lowercase() == short;
    let tasks = TaskType::ALL.iter().map(|task| format!("executor.{}", task.short().to_lowercase()));
    let names = || tasks.clone().chain(["executor.spare".to_owned()]);
    TaskType::ALL.iter().find(known).copied().ok_or_else(|| unknown(at, names()))
}

fn variables_of(at: &str, value: &Value) -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    for (name, value) in table(at, value)? {
        let Value::String(text) = value else {
            return Err(ConfigError::Kind { key: format!("{at}.{name}"), expected: "a text in quotes" });
        };
        if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
            return Err(ConfigError::Kind {
                key: format!("{at}.{name}"),
                expected: "a name without = and NUL",
            });
        }
        variables.insert(name.clone(), text.clone());
    }
    Ok(variables)
}

fn table<'a>(key: &str, value: &'a Value) -> Result<&'a Table, ConfigError> {
    value.as_table().ok_or_else(|| ConfigError::Kind { key: key.to_owned(), expected: "a table" })
}

fn unknown(key: &str, known: impl IntoIterator<Item = String>) -> ConfigError {
    let nearest = known.into_iter().min_by_key(|candidate| distance(key, candidate));
    ConfigError::Unknown { key: key.to_owned(), nearest: nearest.unwrap_or_default() }
}

/// Edit distance: how many characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

/// A mistake in `config.toml`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too long to be a settings file.
    #[error("{} has {length} bytes; at most 1 MiB is read", .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// It is no TOML.
    #[error("config.toml is no valid TOML")]
    Syntax {
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that means nothing.
    #[error("config.toml: unknown key `{key}`; did you mean `{nearest}`?")]
    Unknown {
        /// The key.
        key: String,
        /// The nearest key that means something.
        nearest: String,
    },
    /// A sealing thread cannot be there.
    #[error("config.toml: the sealing_thread at {} {why}", .location.display())]
    Location {
        /// Its directory.
        location: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A value of the wrong kind.
    #[error("config.toml: `{key}` must be {expected}")]
    Kind {
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_per_task() {
        let config = Config::parse("[executor.pc1.env]\nFIL_PROOFS_USE_MULTICORE_SDR = \"1\"\n").unwrap();
        let pc1 = &config.executor_environment[&TaskType::PreCommit1];
        assert_eq!(pc1["FIL_PROOFS_USE_MULTICORE_SDR"], "1");
        assert_eq!(config.executor_environment.len(), 1);
    }

    #[test]
    fn a_place_is_read_per_task() {
        let config = Config::parse("[executor.pc1]\ncpus = \"0-3\"\nmemory = \"72GiB\"\n").unwrap();
        let cpus = Some("0-3".parse().unwrap());
        let expected = Confinement { cpus, memory: Some(72 << 30) };
        assert_eq!(config.confinement, [(TaskType::PreCommit1, expected)].into());
        for wrong in ["cpus = \"l2\"", "cpus = 3", "memory = \"much\"", "memory = \"0GiB\"", "memory = 7"] {
            let told = Config::parse(&format!("[executor.pc1]\n{wrong}\n")).unwrap_err().to_string();
            assert!(told.contains("must be"), "{told}");
        }
    }

    #[test]
    fn spare_executors_are_switched_off_by_false_alone() {
        assert!(
            Config::parse("").unwrap().spare && Config::parse("[executor]\nspare = true\n").unwrap().spare
        );
        assert!(!Config::parse("[executor]\nspare = false\n").unwrap().spare);
        let told = |text: &str| Config::parse(text).unwrap_err().to_string();
        for wrong in ["\"no\"", "0", "2"] {
            let told = told(&format!("[executor]\nspare = {wrong}\n"));
            assert_eq!(told, "config.toml: `executor.spare` must be true or false");
        }
        assert!(told("[executor]\nspares = false\n").ends_with("did you mean `executor.spare`?"));
    }

    #[test]
    fn certificate_files_are_named() {
        let text = "[tls]\ncertificate = \"/etc/w.pem\"\nprivate_key = \"w.key\"\nca_file = \"\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.certificate, Some("/etc/w.pem".into()));
        assert_eq!((config.private_key, config.ca_file), (Some("w.key".into()), None));
    }

    #[test]
    fn sealing_threads_are_read_in_their_order() {
        let text = "[[sealing_thread]]\nlocation = \"/mnt/b\"\n[[sealing_thread]]\nlocation = \"a\"\nplan = \"rebuild\"\n";
        let thread = |location: &str, plan| SealingThread { location: location.into(), plan };
        let expected = [thread("/mnt/b", None), thread("a", Some(SealingPlan::Rebuild))];
        assert_eq!(Config::parse(text).unwrap().sealing_threads, expected);
        let told = |text: &str| Config::parse(text).unwrap_err().to_string();
        assert_eq!(
            told("[[sealing_thread]]\nplan = \"any\"\n"),
            "config.toml: `sealing_thread 1: location` must be given"
        );
        assert_eq!(
            told("[[sealing_thread]]\nlocation = \"a\"\nplan = \"wdpost\"\n"),
            "config.toml: `sealing_thread 1: plan` must be any, sealer, rebuild or none, in quotes"
        );
        assert!(
            told("[[sealing_thread]]\nlocatoin = \"a\"\n")
                .ends_with("did you mean `sealing_thread 1: location`?")
        );
        assert!(told("[sealing_thread]\nlocation = \"a\"\n").contains("blocks [[sealing_thread]]"));
    }

    #[test]
    fn a_new_repos_settings_change_nothing() {
        assert_eq!(Config::parse(Config::DEFAULTS).unwrap(), Config::default());
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        let told = |text: &str| Config::parse(text).unwrap_err().to_string();
        assert_eq!(told("[executer]\n"), "config.toml: unknown key `executer`; did you mean `executor`?");
        assert_eq!(
            told("[executor.pc3.env]\n"),
            "config.toml: unknown key `executor.pc3`; did you mean `executor.pc1`?"
        );
        assert_eq!(
            told("[executor.c2.envv]\n"),
            "config.toml: unknown key `executor.c2.envv`; did you mean `executor.c2.env`?"
        );
        assert_eq!(
            told("[executor.c2.env]\nA = 1\n"),
            "config.toml: `executor.c2.env.A` must be a text in quotes"
        );
        assert_eq!(told("[executor"), "config.toml is no valid TOML");
        assert_eq!(
            told("[tls]\ncertificat = \"a\"\n"),
            "config.toml: unknown key `tls.certificat`; did you mean `tls.certificate`?"
        );
        assert_eq!(
            told("[tls]\nca_file = 1\n"),
            "config.toml: `tls.ca_file` must be a file's path in quotes"
        );
    }
}
