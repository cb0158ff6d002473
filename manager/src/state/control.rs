//! What operators set: modes and limits of workers and machines, kept by name so that they outlive sessions and restarts;
//! priorities, kept in the rows of sectors and tasks. Never: what follows from it.

use std::collections::BTreeMap;

use rpc::operator::WorkerMode;
use rusqlite::{Connection, Row};
use sealtasks::{CapLimit, CapSpec, TaskCaps, TaskGroup};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::query::{all, column};
use super::{State, StateError, StateEvent, database, loaded, stored};

/// Settings kept; beyond, a new one is refused. Far more than there are workers, and it bounds what is read at the start.
pub const CONTROLS_MAX: usize = 100_000;

/// Limits on one worker or machine from one source (an operator, the configuration, the worker's flags). The scheduler keeps
/// 256 of all three together, so no limit that was taken is ever refused by it.
pub const CAPS_MAX: usize = 64;

/// Everything that was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// For workers, connected or not.
    pub workers: BTreeMap<WorkerIdentity, WorkerControl>,
    /// Limits of machines, by name.
    pub machines: BTreeMap<String, CapChanges>,
}

/// What makes a worker the same one after a restart: its session is new then. One that comes back under another of these is
/// known by its repo's id, if it tells one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerIdentity {
    /// Its name.
    pub name: String,
    /// Where it is reached; empty for the manager's own.
    pub url: String,
}

/// What was set for one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerControl {
    /// What it may do.
    pub mode: WorkerMode,
    /// Who said so, and when in Unix milliseconds; `None` = nobody ever did.
    pub mode_set: Option<(String, u64)>,
    /// Its limits.
    pub caps: CapChanges,
    /// Its repo's own id, by which it is found when it comes back at another address; a Lotus worker has none.
    pub repo: Option<Uuid>,
}

/// Limits that go over the configured ones; `None` = no limit, whatever is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapChanges(BTreeMap<TaskGroup, Option<u32>>);

impl CapChanges {
    /// Takes one change.
    pub fn apply(&mut self, spec: &CapSpec) {
        match spec.limit {
            CapLimit::Most(most) => self.0.insert(spec.group.clone(), Some(most)),
            CapLimit::Unlimited => self.0.insert(spec.group.clone(), None),
            CapLimit::Configured => self.0.remove(&spec.group),
        };
    }

    /// The configured limits with these over them.
    pub fn over(&self, mut configured: TaskCaps) -> TaskCaps {
        for (group, most) in &self.0 {
            match most {
                Some(most) => configured.set(group.clone(), *most),
                None => configured.lift(group),
            }
        }
        configured
    }

    /// Every change, by group.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskGroup, Option<u32>)> {
        self.0.iter().map(|(group, most)| (group, *most))
    }
}

impl State {
    /// What operators have set.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn controls(&self) -> Result<Controls, StateError> {
        self.read(load).await
    }
}

fn load(db: &Connection) -> Result<Controls, StateError> {
    let sql = "SELECT machine, name, url, mode, mode_by, mode_ms, caps, repo FROM control";
    let mut controls = Controls::default();
    for (machine, identity, control) in all(db, sql, [], row)? {
        if machine {
            controls.machines.insert(identity.name, control.caps);
        } else {
            controls.workers.insert(identity, control);
        }
    }
    Ok(controls)
}

fn row(row: &Row<'_>) -> Result<(bool, WorkerIdentity, WorkerControl), StateError> {
    let bad = |what: &'static str, text: &str| StateError::Corrupt { what, detail: text.to_owned() };
    let identity = WorkerIdentity { name: row.get(1).map_err(column)?, url: row.get(2).map_err(column)? };
    let (mode, by): (String, String) = (row.get(3).map_err(column)?, row.get(4).map_err(column)?);
    let at_ms = loaded("time", row.get(5).map_err(column)?)?;
    let (caps, repo): (String, String) = (row.get(6).map_err(column)?, row.get(7).map_err(column)?);
    let repo = (!repo.is_empty()).then(|| repo.parse().map_err(|_| bad("repo id", &repo))).transpose()?;
    let control = WorkerControl {
        mode: WorkerMode::from_word(&mode).ok_or_else(|| bad("worker mode", &mode))?,
        mode_set: (at_ms > 0).then_some((by, at_ms)),
        caps: serde_json::from_str(&caps).map_err(|source| bad("limits", &source.to_string()))?,
        repo,
    };
    Ok((row.get(0).map_err(column)?, identity, control))
}

/// Keeps what was set, over what was set before.
pub(super) fn store(db: &Connection, now: i64, event: &StateEvent) -> Result<(), StateError> {
    let kept = match event {
        StateEvent::WorkerModeSet { worker, mode, by } => db
            .prepare_cached(
                "INSERT INTO control (machine, name, url, mode, mode_by, mode_ms, caps) VALUES (0, ?1, ?2, ?3, ?4, ?5, '{}')
                 ON CONFLICT DO UPDATE SET mode = ?3, mode_by = ?4, mode_ms = ?5",
            )
            .and_then(|mut statement| statement.execute((&worker.name, &worker.url, mode.word(), by, now))),
        StateEvent::WorkerRecognised { worker, repo, before } => {
            let before = before.as_ref().unwrap_or(worker);
            db.prepare_cached(
                "UPDATE control SET name = ?1, url = ?2, repo = ?3 WHERE machine = 0 AND name = ?4 AND url = ?5",
            )
            .and_then(|mut statement| {
                statement.execute((&worker.name, &worker.url, repo.to_string(), &before.name, &before.url))
            })
        }
        StateEvent::WorkerCapsSet { worker, caps, .. } => store_caps(db, (false, &worker.name, &worker.url), caps)?,
        StateEvent::MachineCapsSet { machine, caps, .. } => store_caps(db, (true, machine, ""), caps)?,
        StateEvent::SectorPrioritySet { sector, priority, .. } => {
            let key = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
            db.prepare_cached("UPDATE sector SET priority = ?3 WHERE miner = ?1 AND number = ?2")
                .and_then(|mut statement| statement.execute((key.0, key.1, priority)))
        }
        StateEvent::TaskPrioritySet { task, priority, .. } => {
            let task = stored("task", task.get())?;
            db.prepare_cached("UPDATE task SET priority = ?2 WHERE id = ?1 AND ended_ms = 0")
                .and_then(|mut statement| statement.execute((task, priority)))
        }
        _ => Ok(0),
    };
    match kept.map_err(database("keep what an operator set"))? {
        1 => Ok(()),
        rows => {
            let detail = format!("{rows} rows match instead of one");
            Err(StateError::Inapplicable { kind: event.kind(), detail })
        }
    }
}

fn store_caps(
    db: &Connection,
    (machine, name, url): (bool, &str, &str),
    caps: &CapChanges,
) -> Result<rusqlite::Result<usize>, StateError> {
    let json = serde_json::to_string(caps)
        .map_err(|source| StateError::Corrupt { what: "limits", detail: source.to_string() })?;
    Ok(db
        .prepare_cached(
            "INSERT INTO control (machine, name, url, mode, mode_by, mode_ms, caps) VALUES (?1, ?2, ?3, 'open', '', 0, ?4)
             ON CONFLICT DO UPDATE SET caps = ?4",
        )
        .and_then(|mut statement| statement.execute((machine, name, url, json))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_go_over_what_is_configured_until_they_are_taken_back() {
        let spec = |text: &str| text.parse::<CapSpec>().expect("a limit");
        let mut configured = TaskCaps::none();
        for (group, most) in [("PC1", 3), ("C2", 1)] {
            configured.set(group.parse().expect("a group"), most);
        }
        let mut changes = CapChanges::default();
        for text in ["PC1=5", "C2=none", "PC2+C2=2", "AP=1", "AP=default"] {
            changes.apply(&spec(text));
        }
        let told = |caps: &TaskCaps| serde_json::to_string(caps).expect("JSON");
        assert_eq!(told(&changes.over(configured.clone())), r#"{"PC1":5,"PC2+C2":2}"#);
        let json = serde_json::to_string(&changes).expect("JSON");
        assert_eq!(json, r#"{"PC1":5,"PC2+C2":2,"C2":null}"#);
        assert_eq!(serde_json::from_str::<CapChanges>(&json).expect("itself"), changes);
        for text in ["PC1=default", "C2=default", "PC2+C2=default"] {
            changes.apply(&spec(text));
        }
        assert_eq!(changes.over(configured.clone()), configured);
    }
}
