//! Which tasks a worker offers, from its flags and environment, and why: the rule in one pure function.

use std::collections::BTreeSet;

use sealtasks::TaskType;

use crate::args::TaskFlag;

/// What a worker will offer.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// The tasks.
    pub tasks: BTreeSet<TaskType>,
    /// One line for people: which rule applied.
    pub rule: &'static str,
    /// What was asked for and is not offered, for people.
    pub notes: Vec<String>,
    /// Commit2 was named rather than merely on by default.
    pub commit2_named: bool,
}

/// One task switch as given.
#[derive(Clone, Debug)]
pub struct Switch {
    /// The flag without dashes, for example `precommit1`.
    pub name: &'static str,
    /// From the command line.
    pub flag: Option<TaskFlag>,
    /// From the environment: the variable and its value.
    pub env: Option<(&'static str, String)>,
}

/// Always offered in Lotus's meaning. C1 runs where the sector's files are, hence on every sealing worker.
const ALWAYS: [TaskType; 4] =
    [TaskType::Fetch, TaskType::Commit1, TaskType::Finalize, TaskType::FinalizeUnsealed];
/// Always offered with bare flags, as in 2020.
const ALWAYS_BARE: [TaskType; 3] = [TaskType::Fetch, TaskType::Commit1, TaskType::Finalize];

/// The task behind a switch, and whether Lotus has it on by default.
fn meaning(name: &str) -> Option<(TaskType, bool)> {
    Some(match name {
        "addpiece" => (TaskType::AddPiece, true),
        "data_cid" => (TaskType::DataCid, true),
        "precommit1" => (TaskType::PreCommit1, true),
        "unseal" => (TaskType::Unseal, true),
        "precommit2" => (TaskType::PreCommit2, true),
        "commit" => (TaskType::Commit2, true),
        "replica_update" => (TaskType::ReplicaUpdate, true),
        "prove_replica_update2" => (TaskType::ProveReplicaUpdate2, true),
        "regen_sector_key" => (TaskType::RegenSectorKey, true),
        "sector_download" => (TaskType::DownloadSector, false),
        "windowpost" => (TaskType::WindowPost, false),
        "winningpost" => (TaskType::WinningPost, false),
        _ => return None,
    })
}

/// Whether this version can do the task.
pub fn is_built(task: TaskType) -> bool {
    worker::offer::BUILT.contains(&task)
}

/// Applies the rule.
///
/// # Errors
/// A variable that is no truth value, or a selection of which nothing can be offered; in words for people.
pub fn select(switches: &[Switch], no_default: bool) -> Result<Selection, String> {
    let mut given = Vec::new();
    for switch in switches {
        given.push((switch, value_of(switch)?));
    }
    let any_bare = given.iter().any(|(_, value)| matches!(value, Some((TaskFlag::Bare, _))));
    let any_set = given.iter().any(|(_, value)| matches!(value, Some((TaskFlag::Set(_), _))));
    let bare_only = any_bare && !any_set;
    let mut selection = Selection {
        tasks: BTreeSet::new(),
        rule: match (bare_only, any_set) {
            (true, _) => "only bare task flags were given: exactly those, plus GET, C1 and FIN",
            (false, true) => "task flags with values: every task is on unless switched off",
            (false, false) => "no task flag was given: every task is on",
        },
        notes: Vec::new(),
        commit2_named: false,
    };
    let data_cid_given = given.iter().any(|(switch, value)| switch.name == "data_cid" && value.is_some());
    for (switch, value) in &given {
        let Some((task, default)) = meaning(switch.name) else {
            return Err(format!("--{} is no task switch", switch.name.replace('_', "-")));
        };
        let wanted = match value {
            Some((TaskFlag::Bare, _)) => true,
            Some((TaskFlag::Set(on), _)) => *on,
            None => default && !bare_only && !no_default,
        };
        if !wanted || (task == TaskType::DataCid && !data_cid_given) {
            continue; // DataCid follows AddPiece below unless it was given itself
        }
        let named = value.is_some();
        if !is_built(task) {
            if named {
                selection.notes.push(format!(
                    "--{}: {task} is not built yet and is not offered",
                    switch.name.replace('_', "-")
                ));
            }
            continue;
        }
        selection.commit2_named |= named && task == TaskType::Commit2;
        selection.tasks.insert(task);
    }
    if !data_cid_given && !bare_only && selection.tasks.contains(&TaskType::AddPiece) {
        selection.tasks.insert(TaskType::DataCid);
    }
    if bare_only && selection.tasks.is_empty() {
        return Err(format!("nothing to offer: {}", selection.notes.join("; ")));
    }
    selection.tasks.extend(if bare_only { &ALWAYS_BARE[..] } else { &ALWAYS[..] });
    Ok(selection)
}

/// What was given: the command line beats the environment.
fn value_of(switch: &Switch) -> Result<Option<(TaskFlag, &'static str)>, String> {
    if let Some(flag) = switch.flag {
        return Ok(Some((flag, "command line")));
    }
    match &switch.env {
        None => Ok(None),
        Some((name, value)) => match value.as_str() {
            "true" | "1" => Ok(Some((TaskFlag::Set(true), name))),
            "false" | "0" => Ok(Some((TaskFlag::Set(false), name))),
            other => Err(format!("{name}={other:?} is neither true nor false")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 12] = [
        "addpiece",
        "data_cid",
        "precommit1",
        "unseal",
        "precommit2",
        "commit",
        "replica_update",
        "prove_replica_update2",
        "regen_sector_key",
        "sector_download",
        "windowpost",
        "winningpost",
    ];

    fn check(
        flags: &[(&str, TaskFlag)],
        env: &[(&'static str, &'static str, &str)],
        no_default: bool,
    ) -> String {
        let switches: Vec<Switch> = NAMES
            .iter()
            .map(|name| Switch {
                name,
                flag: flags.iter().find(|(n, _)| n == name).map(|(_, f)| *f),
                env: env.iter().find(|(n, ..)| n == name).map(|(_, var, value)| (*var, (*value).to_owned())),
            })
            .collect();
        match select(&switches, no_default) {
            Ok(selection) => selection.tasks.iter().map(|t| t.short()).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn nothing_given_offers_everything_that_is_built() {
        assert_eq!(check(&[], &[], false), "DC AP PC1 PC2 C1 C2 FIN FUS GET UNS");
    }

    #[test]
    fn bare_flags_mean_exactly_those() {
        let flags = [("precommit1", TaskFlag::Bare), ("commit", TaskFlag::Bare)];
        assert_eq!(check(&flags, &[], false), "PC1 C1 C2 FIN GET");
        assert_eq!(check(&[("addpiece", TaskFlag::Bare)], &[], false), "AP C1 FIN GET");
    }

    #[test]
    fn a_value_anywhere_means_lotus() {
        let flags = [("precommit1", TaskFlag::Bare), ("commit", TaskFlag::Set(false))];
        assert_eq!(check(&flags, &[], false), "DC AP PC1 PC2 C1 FIN FUS GET UNS");
        let env = [("precommit2", "LOTUS_WORKER_PRECOMMIT2", "false")];
        assert_eq!(check(&[("precommit1", TaskFlag::Bare)], &env, false), "DC AP PC1 C1 C2 FIN FUS GET UNS");
        assert_eq!(check(&[("addpiece", TaskFlag::Set(false))], &[], false), "PC1 PC2 C1 C2 FIN FUS GET UNS");
    }

    #[test]
    fn the_command_line_beats_the_environment() {
        let env = [("commit", "LOTUS_WORKER_COMMIT", "false")];
        assert!(check(&[("commit", TaskFlag::Set(true))], &env, false).contains("C2"));
    }

    #[test]
    fn no_default_leaves_what_every_worker_offers() {
        assert_eq!(check(&[], &[], true), "C1 FIN FUS GET");
    }

    #[test]
    fn what_is_not_built_is_never_offered() {
        assert!(check(&[("windowpost", TaskFlag::Bare)], &[], false).contains("not built yet"));
        assert_eq!(check(&[("windowpost", TaskFlag::Set(true))], &[], true), "C1 FIN FUS GET");
    }

    #[test]
    fn a_variable_that_is_no_truth_value_is_named() {
        let env = [("commit", "LOTUS_WORKER_COMMIT", "yes please")];
        assert!(check(&[], &env, false).contains("LOTUS_WORKER_COMMIT"));
    }
}
