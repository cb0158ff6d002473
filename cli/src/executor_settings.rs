//! The proofs libraries' settings for the executors of one worker: gathered once, checked, passed on, and told to those
//! who ask. Never: changes this process's own environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use proofs::settings::{self, Origin, Variables};
use rpc::extension::ExecutorSetting;
use sealtasks::TaskType;
use worker::environment::Environment;

use crate::exit::{Code, Failure};

const NO_SETTING: &str = "is no setting of the proofs libraries and has no effect";

/// Where a worker's settings come from.
pub struct Sources<'a> {
    /// `--enable-gpu-proving`.
    pub gpu: bool,
    /// `[executor.<task>.env]` of its `config.toml`.
    pub per_task: &'a BTreeMap<TaskType, Variables>,
    /// That `config.toml`.
    pub config: &'a Path,
}

/// What executors get.
#[derive(Debug)]
pub struct ExecutorSettings {
    /// The variables that all of them get.
    pub environment: Environment,
    /// The settings in force: first those of all tasks, then what differs for single ones.
    pub in_force: Vec<ExecutorSetting>,
    /// What was set and has no effect, for people.
    pub notes: Vec<String>,
}

impl ExecutorSettings {
    /// Of this process. The libraries' settings file in the working directory counts here as it does with Lotus; an
    /// executor has a directory of its own, so what the file says reaches it as variables.
    ///
    /// # Errors
    /// A setting that is malformed or whose feature is not compiled in, with its name and where it was set.
    pub fn of_this_process(sources: &Sources<'_>) -> Result<Self, Failure> {
        Self::gather(worker::environment::filtered(std::env::vars_os()), Path::new("."), sources)
    }

    fn gather(
        mut environment: Environment,
        directory: &Path,
        sources: &Sources<'_>,
    ) -> Result<Self, Failure> {
        let unusable = |error: settings::SettingError| Failure::from_error(Code::Setting, &error);
        let variables = texts(&environment);
        let mut notes: Vec<String> =
            settings::ignored(&variables).iter().map(|name| format!("{name} {NO_SETTING}")).collect();
        settings::check(&variables, directory).map_err(unusable)?;
        let mut in_force = Vec::new();
        for setting in settings::in_force(&variables, directory).map_err(unusable)? {
            let Some(value) = setting.value else { continue };
            if let Origin::File(_) = &setting.origin {
                environment.insert(setting.name.clone().into(), value.clone().into());
            }
            in_force.push(ExecutorSetting {
                task: None,
                name: setting.name,
                value,
                origin: setting.origin.to_string(),
            });
        }
        if !sources.gpu {
            environment.insert("BELLMAN_NO_GPU".into(), "1".into());
            in_force.retain(|setting| setting.name != "BELLMAN_NO_GPU");
            in_force.push(ExecutorSetting {
                task: None,
                name: "BELLMAN_NO_GPU".to_owned(),
                value: "1".to_owned(),
                origin: "--enable-gpu-proving=false".to_owned(),
            });
        }
        for (task, own) in sources.per_task {
            let mut merged = texts(&environment);
            merged.extend(own.clone());
            settings::check(&merged, directory).map_err(|error| {
                let section = format!("[executor.{}.env]", task.short().to_lowercase());
                unusable(error).advise(format!("correct {section} in {}", sources.config.display()))
            })?;
            let origin = sources.config.display().to_string();
            let ignored = settings::ignored(own);
            notes.extend(ignored.iter().map(|name| format!("{name} in {origin} {NO_SETTING}")));
            let row = |(name, value): (&String, &String)| ExecutorSetting {
                task: Some(*task),
                name: name.clone(),
                value: value.clone(),
                origin: origin.clone(),
            };
            in_force.extend(own.iter().map(row));
        }
        Ok(Self { environment, in_force, notes })
    }
}

/// Those names and values that are UTF-8; the libraries read no others.
fn texts(environment: &Environment) -> Variables {
    let text = |text: &OsString| text.to_str().map(str::to_owned);
    environment.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(
        variables: &[(&str, &str)],
        file: &str,
        pc1: &[(&str, &str)],
    ) -> Result<ExecutorSettings, String> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(settings::SETTINGS_FILE), file).expect("a file");
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let pc1 = pc1.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let per_task = BTreeMap::from([(TaskType::PreCommit1, pc1)]);
        let sources = Sources { gpu: false, per_task: &per_task, config: Path::new("repo/config.toml") };
        ExecutorSettings::gather(environment, directory.path(), &sources)
            .map_err(|failure| failure.to_string())
    }

    fn row<'a>(settings: &'a ExecutorSettings, task: Option<TaskType>, name: &str) -> &'a ExecutorSetting {
        let wanted = |setting: &&ExecutorSetting| setting.task == task && setting.name == name;
        settings.in_force.iter().find(wanted).unwrap_or_else(|| panic!("{name} is missing: {settings:?}"))
    }

    #[test]
    fn each_setting_says_where_it_comes_from_and_reaches_executors() {
        let settings = gather(
            &[("FIL_PROOFS_SDR_PARENTS_CACHE_SIZE", "15")],
            "verify_cache = true\nsdr_parents_cache_size = 14\n",
            &[("RAYON_NUM_THREADS", "3")],
        )
        .expect("usable settings");
        let size = row(&settings, None, "FIL_PROOFS_SDR_PARENTS_CACHE_SIZE");
        assert_eq!((size.value.as_str(), size.origin.as_str()), ("15", "environment"));
        let caching = row(&settings, None, "FIL_PROOFS_VERIFY_CACHE");
        assert_eq!(caching.value, "true");
        assert!(caching.origin.ends_with(settings::SETTINGS_FILE), "{caching:?}");
        let variable = |name: &str| settings.environment.get(std::ffi::OsStr::new(name)).cloned();
        assert_eq!(
            variable("FIL_PROOFS_VERIFY_CACHE"),
            Some("true".into()),
            "the file's settings are passed on"
        );
        assert_eq!(variable("FIL_PROOFS_SDR_PARENTS_CACHE_SIZE"), Some("15".into()));
        assert_eq!(row(&settings, None, "BELLMAN_NO_GPU").origin, "--enable-gpu-proving=false");
        assert_eq!(variable("BELLMAN_NO_GPU"), Some("1".into()));
        assert_eq!(
            row(&settings, Some(TaskType::PreCommit1), "RAYON_NUM_THREADS").origin,
            "repo/config.toml"
        );
    }

    #[cfg(not(feature = "multicore-sdr"))]
    #[test]
    fn a_setting_without_its_feature_is_an_error_wherever_it_stands() {
        let name = "FIL_PROOFS_USE_MULTICORE_SDR";
        let told = [
            gather(&[(name, "1")], "", &[]),
            gather(&[], "use_multicore_sdr = true\n", &[]),
            gather(&[], "", &[(name, "1")]),
        ];
        for text in told.map(|outcome| outcome.expect_err("the feature is missing")) {
            assert!(
                text.starts_with("error[9]") && text.contains(name) && text.contains("multicore-sdr"),
                "{text}"
            );
        }
    }
}
