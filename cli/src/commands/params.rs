//! `params status|fetch|generate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use proofs::params::fetch::FetchEvent;
use proofs::params::{
    self, Check, Choice, Directories, FetchError, FetchOptions, FetchProgress, FileState, GenerateError,
    GenerateProgress, Purpose,
};
use sealtasks::SectorSize;
use serde_json::{Value, json};

use super::daemon;
use crate::args::ParamsCommand;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{age, bytes, line, paint, print_json, talk};

/// `params …`.
pub async fn params(command: &ParamsCommand) -> Outcome {
    match command {
        ParamsCommand::Status { size, json } => status(size.as_deref(), *json),
        ParamsCommand::Fetch { size, gateway, parallel, dir, json } => {
            let size = parse_size(size)?;
            let options = fetch_options(gateway.as_deref(), *parallel, dir.clone())?;
            fetch(size, &options).await?;
            let directory = options.directory.display().to_string();
            if *json {
                print_json(&json!({ "sector_size": size, "directory": directory }))
            } else {
                line(&format!("parameters for {size} are complete in {directory}"))
            }
        }
        ParamsCommand::Generate { size, until_stdin_closes, json } => {
            let size = parse_size(size)?;
            if *until_stdin_closes {
                // Nothing can stop the generator from inside. What it leaves is what a kill leaves: a temporary file
                // that the next run takes away.
                tokio::spawn(async {
                    daemon::stdin_closed().await;
                    std::process::exit(Code::Failed as i32)
                });
            }
            generate(size, *json)
        }
    }
}

/// A sector size from the command line.
pub fn parse_size(text: &str) -> Result<SectorSize, Failure> {
    text.parse().map_err(|error| Failure::from_error(Code::Setting, &error))
}

fn status(size: Option<&str>, json: bool) -> Outcome {
    let sizes = match size {
        Some(text) => vec![parse_size(text)?],
        None => SectorSize::ALL.to_vec(),
    };
    let directories = Directories::from_environment();
    let mut reports = Vec::new();
    for size in sizes {
        let usable = directories.choose(size);
        if json {
            reports.push(status_json(&directories, size, &usable));
        } else {
            print_status(&directories, size, &usable)?;
        }
    }
    if json { print_json(&reports) } else { Ok(()) }
}

fn print_status(directories: &Directories, size: SectorSize, usable: &Choice) -> Outcome {
    let verdict = match usable {
        Choice::Published(dir) => paint::green(&format!("ready (published), {}", dir.display())),
        Choice::Insecure(dir) => paint::yellow(&format!("ready (generated, insecure), {}", dir.display())),
        Choice::Missing { .. } => paint::red(&format!("missing; run `sealyard params fetch {size}`")),
    };
    line(&format!("{size}: {verdict}"))?;
    for (place, file) in looked_at(directories, size) {
        line(&format!("        {:<8} {:<22} {}", place, describe(&file.state), file.file.name))?;
    }
    Ok(())
}

fn status_json(directories: &Directories, size: SectorSize, usable: &Choice) -> Value {
    let files: Vec<Value> = looked_at(directories, size)
        .into_iter()
        .map(|(place, file)| {
            json!({
                "place": place,
                "path": file.path,
                "name": file.file.name,
                "cid": file.file.cid,
                "digest": file.file.digest,
                "bytes": file.file.bytes,
                "state": describe(&file.state),
            })
        })
        .collect();
    let kind = match usable {
        Choice::Published(_) => "published",
        Choice::Insecure(_) => "insecure",
        Choice::Missing { .. } => "missing",
    };
    json!({ "sector_size": size, "usable": kind, "directory": usable.directory(), "files": files })
}

/// The needed files in the shared directory, and for test sizes in the one of generated parameters.
fn looked_at(directories: &Directories, size: SectorSize) -> Vec<(&'static str, params::FileStatus)> {
    let cache = directories.digest_cache();
    let look = |place: &'static str, dir: &Path| {
        params::status(dir, size, Check::Quick(&cache)).into_iter().map(move |file| (place, file))
    };
    let mut files: Vec<_> = look("shared", &directories.shared).collect();
    if let Some(dir) = directories.insecure.as_ref().filter(|_| size.is_test_size()) {
        files.extend(look("insecure", dir));
    }
    files
}

fn describe(state: &FileState) -> String {
    match state {
        FileState::Right { bytes: count } => format!("right, {}", bytes(*count)),
        FileState::Unchecked { bytes: count } => format!("unchecked, {}", bytes(*count)),
        FileState::Incomplete { bytes: count } => format!("incomplete, {}", bytes(*count)),
        FileState::Missing => "missing".to_owned(),
        FileState::Generated { bytes: count } => format!("generated, {}", bytes(*count)),
        FileState::WrongDigest { found } => format!("wrong digest {found}"),
        FileState::Unreadable { reason } => format!("unreadable: {reason}"),
    }
}

fn fetch_options(
    gateway: Option<&str>,
    parallel: u16,
    dir: Option<PathBuf>,
) -> Result<FetchOptions, Failure> {
    let setting = |error: FetchError| Failure::from_error(Code::Setting, &error);
    let mut options = FetchOptions::new(dir.unwrap_or_else(params::directory)).map_err(setting)?;
    if let Some(text) = gateway {
        options.gateway = params::fetch::parse_gateway(text).map_err(setting)?;
    }
    options.parallel = parallel.into();
    Ok(options)
}

async fn fetch(size: SectorSize, options: &FetchOptions) -> Outcome {
    let bars = MultiProgress::new();
    let known: Mutex<BTreeMap<String, ProgressBar>> = Mutex::new(BTreeMap::new());
    let progress = |progress: FetchProgress<'_>| {
        let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bar =
            known.entry(progress.file.to_owned()).or_insert_with(|| bars.add(transfer_bar(progress.file)));
        match progress.event {
            FetchEvent::Bytes { have, total } => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(have);
            }
            FetchEvent::Waiting => bar.set_message("another process is fetching it"),
            FetchEvent::Retrying { reason } => bar.set_message(format!("trying again: {reason}")),
            FetchEvent::Checking => bar.set_message("checking the digest"),
            FetchEvent::Done => bar.finish_with_message("done"),
        }
    };
    params::fetch(&params::needed(size, Purpose::Prove), options, &progress).await.map_err(|error| {
        let failure = Failure::from_error(Code::Parameters, &error);
        if size.is_test_size() {
            failure.advise(format!("for tests, `sealyard params generate {size}` makes insecure ones"))
        } else {
            failure.advise("run the command again: it goes on where it stopped")
        }
    })
}

fn transfer_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{prefix} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("##-"));
    }
    let ending: String = name.chars().rev().take(14).collect();
    bar.set_prefix(format!("…{}", ending.chars().rev().collect::<String>()));
    bar
}

/// Generates parameters, saying how long it takes. Where stderr is no terminal, one line every ten seconds.
fn generate(size: SectorSize, json: bool) -> Outcome {
    let bar = ProgressBar::new_spinner();
    let terminal = !bar.is_hidden();
    let said = Mutex::new(None::<u64>);
    let progress = |progress: GenerateProgress| {
        let text = progress_text(progress);
        if terminal {
            bar.set_message(text);
            bar.tick();
            return;
        }
        let slot = match progress {
            GenerateProgress::Waiting => 0,
            GenerateProgress::Working { elapsed, .. } => 1 + elapsed.as_secs() / 10,
        };
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *said != Some(slot) {
            *said = Some(slot);
            talk!("{text}");
        }
    };
    let generated = params::generate(size, &progress).map_err(|error| generate_failure(&error))?;
    bar.finish_and_clear();
    let directory = generated.directory.display().to_string();
    if json {
        return print_json(&json!({ "sector_size": size, "directory": directory, "made": generated.made }));
    }
    for (name, digest) in &generated.made {
        line(&format!("{digest} {name}"))?;
    }
    line(&format!(
        "insecure parameters for {size}, for tests and private networks only, are complete in {directory}"
    ))
}

/// `generating parameters: 2m10s of about 8m10s`.
pub fn progress_text(progress: GenerateProgress) -> String {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    match progress {
        GenerateProgress::Waiting => {
            "another process is generating the parameters; waiting for it".to_owned()
        }
        GenerateProgress::Working { elapsed, expected } => {
            format!("generating parameters: {} of about {}", age(ms(elapsed)), age(ms(expected)))
        }
    }
}

fn generate_failure(error: &GenerateError) -> Failure {
    let code = match error {
        GenerateError::Size { .. } | GenerateError::NoDirectory | GenerateError::SharedDirectory { .. } => {
            Code::Setting
        }
        _ => Code::Parameters,
    };
    Failure::from_error(code, error)
}
