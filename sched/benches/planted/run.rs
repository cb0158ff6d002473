//! Plants every bug of the table in a copy of the scheduler and lets the fault schedules look for it.
//!
//! `cargo run --release -p sched --example planted`, from anywhere in the workspace: copies the two rooms that it needs to
//! `target/planted`, plants all bugs there behind one switch, builds once, and plays up to `--schedules` (2000) schedules
//! with each bug switched on, and with none. It fails where a bug was not caught, or where something was found without.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod bugs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bugs::{BUGS, Bug};

/// The variable that switches a bug on, by its number.
const SWITCH: &str = "SEALYARD_PLANTED";

const MODULE: &str = r#"//! Which planted bug is switched on.
use std::sync::OnceLock;
static CHOSEN: OnceLock<usize> = OnceLock::new();
pub(crate) fn is(number: usize) -> bool {
    let read = || std::env::var("SEALYARD_PLANTED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *CHOSEN.get_or_init(read) == number
}
"#;

fn main() -> ExitCode {
    let schedules = match arguments() {
        Ok(schedules) => schedules,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match planted().and_then(|program| look_for_all(&program, &schedules)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<String, String> {
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (None, _) => Ok("2000".to_owned()),
        (Some("--schedules"), Some(count)) if count.parse::<u64>().is_ok() => Ok(count),
        (Some(other), _) => Err(format!("{other}: expected --schedules and a whole number")),
    }
}

/// Makes the copy and builds it. Returns the program that plays schedules.
fn planted() -> Result<PathBuf, String> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = room.parent().ok_or("the room lies in no workspace")?;
    let copy = root.join("target/planted");
    for part in ["sealtasks", "sched"] {
        let _ = fs::remove_dir_all(copy.join(part));
        copy_all(&root.join(part), &copy.join(part))?;
    }
    write(&copy.join("Cargo.toml"), &small_workspace(&read(&root.join("Cargo.toml"))?)?)?;
    write(&copy.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)?;
    let sources = copy.join("sched/src");
    for (position, bug) in BUGS.iter().enumerate() {
        let file = sources.join(bug.file);
        write(&file, &plant(&read(&file)?, position + 1, bug)?)?;
    }
    write(&sources.join("planted.rs"), MODULE)?;
    let lib = sources.join("lib.rs");
    write(&lib, &read(&lib)?.replacen("mod action;", "mod action;\nmod planted;", 1))?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.current_dir(&copy).env_remove("CARGO_TARGET_DIR");
    build.args(["build", "--offline", "--release", "-p", "sched", "--example", "faults"]);
    let status = build.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("the copy with the planted bugs does not compile".to_owned());
    }
    Ok(copy.join("target/release/examples/faults"))
}

fn look_for_all(program: &Path, schedules: &str) -> Result<bool, String> {
    let mut all_well = true;
    for number in 0..=BUGS.len() {
        let mut run = Command::new(program);
        run.env(SWITCH, number.to_string()).args(["--schedules", schedules, "--brief"]);
        let record = program.with_file_name(format!("planted-{number}.jsonl"));
        run.arg("--record").arg(record);
        if number > 0 {
            run.arg("--expect-violation");
        }
        let output = run.output().map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let first = text.lines().next().unwrap_or("said nothing").chars().take(96).collect::<String>();
        let is_well = output.status.success();
        all_well &= is_well;
        let what = number.checked_sub(1).map_or("none", |position| BUGS[position].what);
        let word = match (number, is_well) {
            (0, true) => "clean",
            (0, false) => "NOT CLEAN",
            (_, true) => "caught",
            (_, false) => "NOT CAUGHT",
        };
        println!("{number:>2} {word:<10} {what:<68} {first}");
    }
    Ok(all_well)
}

fn plant(text: &str, number: usize, bug: &Bug) -> Result<String, String> {
    match text.matches(bug.right).count() {
        1 => {
            let wrong = bug.wrong.replace('@', &format!("crate::planted::is({number})"));
            Ok(text.replacen(bug.right, &wrong, 1))
        }
        times => Err(format!(
            "bug {number} ({}): its place occurs {times} times in {}, not once: {:?}",
            bug.what, bug.file, bug.right
        )),
    }
}

/// The workspace's manifest with no members but the two rooms.
fn small_workspace(text: &str) -> Result<String, String> {
    let (before, rest) = text.split_once("members = [").ok_or("Cargo.toml has no members")?;
    let (_, after) = rest.split_once(']').ok_or("the members of Cargo.toml have no end")?;
    let text = format!("{before}members = [\"sealtasks\", \"sched\"]{after}");
    Ok(text.replacen("default-members = [\"cli\"]", "default-members = [\"sched\"]", 1))
}

fn copy_all(from: &Path, to: &Path) -> Result<(), String> {
    let fails = |error: std::io::Error| format!("{} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).map_err(fails)?;
    for entry in fs::read_dir(from).map_err(fails)? {
        let entry = entry.map_err(fails)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_all(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(fails)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
