//! Managers that follow each other, and what each knows of its workers and of what runs there.
#![allow(dead_code, reason = "only some test targets have several managers")]

use std::path::Path;

use serde_json::Value;

use super::{Daemon, json, ok, sealyard};

/// A manager, and where it listens.
pub fn manager(home: &Path, args: &[&str]) -> (Daemon, String) {
    let mut manager = Daemon::start("manager", sealyard(home).arg("run").args(args));
    let said = manager.expect("listening on");
    let listen = said.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).expect("an address");
    let listen = listen.trim_end_matches(';').to_owned();
    (manager, listen)
}

/// A token of the manager that runs in the default repo.
pub fn token(home: &Path) -> String {
    ok(sealyard(home).args(["auth", "create-token", "--perm", "admin"])).trim().to_owned()
}

/// The workers that this repo's manager has, with their states.
pub fn fleet(home: &Path, repo: &str) -> Vec<(String, String)> {
    let workers = json(home, &["--repo", repo, "workers", "list"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    workers.as_array().expect("a list").iter().map(|row| (text(&row["name"]), text(&row["state"]))).collect()
}

/// Whether worker A lives at this repo's manager and is charged for one PreCommit1.
pub fn has_its_pc1(home: &Path, repo: &str) -> bool {
    let workers = json(home, &["--repo", repo, "workers", "list"]);
    let a = workers.as_array().expect("a list").iter().find(|worker| worker["name"] == "A");
    a.is_some_and(|a| a["state"] == "live" && a["running"]["PC1"] == 1)
}

/// State and worker of every attempt at PreCommit1 that some worker had, oldest first.
pub fn attempts(status: &Value) -> Vec<(String, String)> {
    let of_pc1 = |row: &&Value| row["task"] == "seal/v0/precommit/1";
    let rows = status["tasks"].as_array().expect("tasks").iter().filter(of_pc1);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = rows.map(|row| (text(&row["state"]), text(&row["worker"])));
    rows.filter(|(_, worker)| !worker.is_empty()).collect()
}

/// Whether the newest of them runs.
pub fn runs(status: &Value) -> bool {
    attempts(status).last().is_some_and(|(state, _)| state == "running")
}
