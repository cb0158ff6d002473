//! The settings of the proofs libraries: which are in force, where each came from, and which this build cannot serve.
//!
//! The libraries read them from the environment and from `rust-fil-proofs.config.toml` in the working directory, once
//! per process, and ignore or panic over what they do not understand. Here such a setting is an error. Nothing in this
//! file changes a setting.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use storage_proofs_core::settings::Settings as LibrarySettings;

/// The file the libraries read in the working directory.
pub const SETTINGS_FILE: &str = "rust-fil-proofs.config.toml";
/// What the names of storage-proofs settings begin with in the environment.
const PREFIX: &str = "FIL_PROOFS_";
/// The settings file is a page at most; more is not read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Names and texts of environment variables.
pub type Variables = BTreeMap<String, String>;

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name of its environment variable.
    pub name: String,
    /// Its value; `None` when it is unset and has no default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable.
    Environment,
    /// The libraries' settings file.
    File(PathBuf),
    /// The libraries' own default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// Its feature is not in this build.
    #[error(
        "{name}={value} needs the feature {needs}, which this build lacks{}; unset it, or build with `cargo build --release --features {build}`",
        from(origin)
    )]
    FeatureMissing {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// The feature or features that would serve it.
        needs: &'static str,
        /// The one to build with.
        build: &'static str,
    },
    /// Its value is not of its kind.
    #[error("{name}={value:?} is no {expected}{}", from(origin))]
    Malformed {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// What it should be.
        expected: &'static str,
    },
    /// The settings file cannot be read.
    #[error("reading the proofs settings file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings file is no TOML.
    #[error("the proofs settings file {} is no valid TOML", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// The settings file is longer than any real one.
    #[error("the proofs settings file {} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
    },
}

fn from(origin: &Origin) -> String {
    match origin {
        Origin::Environment | Origin::Default => String::new(),
        Origin::File(path) => format!(" (set in {})", path.display()),
    }
}

/// The proofs features compiled into this program, by their cargo names.
pub fn compiled_features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("cuda-supraseal", cfg!(feature = "cuda-supraseal")),
        ("multicore-sdr", cfg!(feature = "multicore-sdr")),
        ("opencl", cfg!(feature = "opencl")),
    ];
    all.into_iter().filter_map(|(name, compiled)| compiled.then_some(name)).collect()
}

/// This process's environment. Names or values that are not UTF-8 are not the libraries' and are left off.
pub fn environment() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Every known setting with the value that an executor started with `variables` in `directory` would use, in name order.
pub fn in_force(variables: &Variables, directory: &Path) -> Result<Vec<Setting>, SettingError> {
    let path = directory.join(SETTINGS_FILE);
    let file = read_file(&path)?;
    let settings = known().into_iter().map(|known| {
        let from_file = known.field.as_ref().and_then(|field| file.get(field)).map(toml_text);
        let (value, origin) = match (variables.get(&known.name), from_file) {
            (Some(value), _) => (Some(value.clone()), Origin::Environment),
            (None, Some(value)) => (Some(value), Origin::File(path.clone())),
            (None, None) => (known.default, Origin::Default),
        };
        Setting { name: known.name, value, origin }
    });
    Ok(settings.collect())
}

/// Refuses what this build would ignore or choke on. See [`SettingError`].
pub fn check(variables: &Variables, directory: &Path) -> Result<(), SettingError> {
    let known: BTreeMap<String, Known> =
        known().into_iter().map(|known| (known.name.clone(), known)).collect();
    for setting in in_force(variables, directory)? {
        let (Some(value), false) = (setting.value, setting.origin == Origin::Default) else { continue };
        // in_force lists exactly the known ones.
        let Some(known) = known.get(&setting.name) else { continue };
        check_one(known, value, setting.origin)?;
    }
    Ok(())
}

/// [`check`] for this process as it is.
pub fn check_process() -> Result<(), SettingError> {
    check(&environment(), Path::new("."))
}

/// `FIL_PROOFS_*` variables that the libraries do not know: misspelt, or of an older version. They have no effect.
pub fn ignored(variables: &Variables) -> Vec<String> {
    let known = known();
    let unknown = |name: &&String| name.starts_with(PREFIX) && known.iter().all(|k| k.name != **name);
    variables.keys().filter(unknown).cloned().collect()
}

/// What a setting's text must be.
#[derive(Clone, Copy)]
enum Kind {
    Switch,
    Number,
    Fraction,
    Framework,
    Text,
}

/// When a setting needs a feature.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Gpu,
    MulticoreSdr,
    TheFrameworkNamed,
}

struct Known {
    name: String,
    /// Its key in the settings file; `None` for variables that are read from the environment alone.
    field: Option<String>,
    default: Option<String>,
    kind: Kind,
    needs: Needs,
}

/// Variables outside storage-proofs' own settings: bellperson, neptune, ec-gpu-gen, rust-gpu-tools, rayon and CUDA.
const OTHERS: [(&str, Kind, Needs); 14] = [
    ("BELLMAN_CPU_UTILIZATION", Kind::Fraction, Needs::Gpu),
    ("BELLMAN_CUSTOM_GPU", Kind::Text, Needs::Gpu),
    ("BELLMAN_GPU_FRAMEWORK", Kind::Framework, Needs::TheFrameworkNamed),
    ("BELLMAN_NO_GPU", Kind::Text, Needs::Nothing),
    ("BELLPERSON_GPUS_PER_LOCK", Kind::Number, Needs::Gpu),
    ("CUDA_VISIBLE_DEVICES", Kind::Text, Needs::Nothing), // often set machine-wide, and harmless without CUDA
    ("EC_GPU_FRAMEWORK", Kind::Framework, Needs::TheFrameworkNamed),
    ("EC_GPU_NUM_THREADS", Kind::Number, Needs::Nothing),
    ("FIL_PROOFS_CACHE_DIR", Kind::Text, Needs::Nothing),
    ("FIL_PROOFS_GPU_FRAMEWORK", Kind::Framework, Needs::TheFrameworkNamed),
    ("NEPTUNE_GPU_FRAMEWORK", Kind::Framework, Needs::TheFrameworkNamed),
    ("RAYON_NUM_THREADS", Kind::Number, Needs::Nothing),
    ("RUST_GPU_TOOLS_CUSTOM_GPU", Kind::Text, Needs::Gpu),
    ("RUST_LOG", Kind::Text, Needs::Nothing),
];

/// All known settings in name order. Storage-proofs' own come from the library's type, so that none is forgotten when
/// it gains one.
fn known() -> Vec<Known> {
    let mut known: Vec<Known> = OTHERS
        .iter()
        .map(|(name, kind, needs)| Known {
            name: (*name).to_owned(),
            field: None,
            default: None,
            kind: *kind,
            needs: *needs,
        })
        .collect();
    // The type serialises to a flat object; were it ever not to, the test below fails.
    if let Ok(Value::Object(fields)) = serde_json::to_value(LibrarySettings::default()) {
        known.extend(fields.into_iter().map(|(field, default)| {
            let kind = match &default {
                Value::Bool(_) => Kind::Switch,
                Value::Number(_) => Kind::Number,
                Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => Kind::Text,
            };
            let text = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            Known {
                name: format!("{PREFIX}{}", field.to_uppercase()),
                needs: needs_of(&field),
                field: Some(field),
                default: Some(text),
                kind,
            }
        }));
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}

fn needs_of(field: &str) -> Needs {
    if field.contains("gpu") {
        Needs::Gpu
    } else if field.contains("multicore_sdr") {
        Needs::MulticoreSdr
    } else {
        Needs::Nothing
    }
}

const HAS_GPU: bool = cfg!(feature = "cuda") || cfg!(feature = "opencl") || cfg!(feature = "cuda-supraseal");
const HAS_CUDA: bool = cfg!(feature = "cuda") || cfg!(feature = "cuda-supraseal");

fn check_one(known: &Known, value: String, origin: Origin) -> Result<(), SettingError> {
    let (well_formed, expected) = match known.kind {
        Kind::Switch => (switch(&value).is_some(), "switch; expected 1, 0, true, false, on, off, yes or no"),
        Kind::Number => (value.parse::<u64>().is_ok(), "whole number"),
        Kind::Fraction => {
            (value.parse::<f64>().is_ok_and(|part| (0.0..=1.0).contains(&part)), "number between 0 and 1")
        }
        Kind::Framework => {
            (matches!(value.as_str(), "cuda" | "opencl"), "GPU framework; expected cuda or opencl")
        }
        Kind::Text => (true, "text"),
    };
    if !well_formed {
        return Err(SettingError::Malformed { name: known.name.clone(), value, origin, expected });
    }
    if matches!(known.kind, Kind::Switch) && switch(&value) == Some(false) {
        return Ok(()); // switched off: nothing is asked for
    }
    let (served, needs, build) = match known.needs {
        Needs::Nothing => (true, "", ""),
        Needs::Gpu => (HAS_GPU, "cuda or opencl", "cuda"),
        Needs::MulticoreSdr => (cfg!(feature = "multicore-sdr"), "multicore-sdr", "multicore-sdr"),
        Needs::TheFrameworkNamed if value == "cuda" => (HAS_CUDA, "cuda", "cuda"),
        Needs::TheFrameworkNamed => (cfg!(feature = "opencl"), "opencl", "opencl"),
    };
    if served {
        return Ok(());
    }
    Err(SettingError::FeatureMissing { name: known.name.clone(), value, origin, needs, build })
}

/// A switch as the libraries' configuration reader takes it.
fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Some(true),
        "0" | "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

fn toml_text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn read_file(path: &Path) -> Result<toml::Table, SettingError> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        Err(source) => return Err(SettingError::File { path: path.to_owned(), source }),
    };
    if length > FILE_BYTES_MAX {
        return Err(SettingError::FileTooLong { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingError::File { path: path.to_owned(), source })?;
    text.parse().map_err(|source| SettingError::Toml { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
