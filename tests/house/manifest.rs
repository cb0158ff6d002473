//! A room's Cargo.toml and the rules it must keep.

use toml::{Table, Value};

/// Who may depend on whom, in tests and benchmarks too. A package that is not here is none of the house's.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "sealyard",
        &[
            "sealtasks",
            "sched",
            "pipeline",
            "pieces",
            "stores",
            "chain",
            "proofs",
            "rpc",
            "worker",
            "manager",
        ],
    ),
    ("manager", &["rpc", "stores", "chain", "pieces", "sched", "pipeline", "sealtasks"]),
    ("worker", &["rpc", "stores", "pieces", "sealtasks"]),
    ("rpc", &["sealtasks"]),
    ("stores", &["pieces", "sealtasks"]),
    ("chain", &["rpc", "sealtasks"]),
    ("proofs", &["pieces", "sealtasks"]),
    ("pieces", &["sealtasks"]),
    ("sched", &["sealtasks"]),
    ("pipeline", &["sealtasks"]),
    ("sealtasks", &[]),
    ("house", &[]),
];

/// What a pure room may use besides other rooms: crates that only shape and encode values.
const VALUE_CRATES: [&str; 8] =
    ["serde", "serde_json", "thiserror", "uuid", "cid", "multihash", "base64", "hex"];

/// Names of the proofs libraries, and the beginnings of their families.
pub const PROVERS: [&str; 5] = ["bellperson", "blstrs", "neptune", "supraseal", "rust-gpu-tools"];
/// Every crate whose name begins so is one of the proofs libraries.
pub const PROVER_FAMILIES: [&str; 4] = ["filecoin-", "storage-proofs-", "fil-proofs-", "ec-gpu"];

/// A parsed manifest.
pub struct Manifest {
    /// The package's name.
    pub name: String,
    table: Table,
}

struct Dependency<'a> {
    section: &'a str,
    package: &'a str,
    value: &'a Value,
}

impl Manifest {
    pub fn parse(text: &str) -> Self {
        let table: Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let name = table["package"]["name"].as_str().expect("a package's name is a text").to_owned();
        Self { name, table }
    }

    /// Rooms that this one must not depend on.
    pub fn wrong_arrows(&self) -> Vec<String> {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == self.name) else {
            return vec![format!("the package {} is not in the map of arrows in tests/house", self.name)];
        };
        let room = |name: &str| ARROWS.iter().any(|(known, _)| *known == name);
        self.complain(
            |dependency| room(dependency.package) && !allowed.contains(&dependency.package),
            |dependency| {
                format!(
                    "{} of {}: may depend on {} only",
                    dependency.package,
                    dependency.section,
                    allowed.join(", ")
                )
            },
        )
    }

    /// Dependencies of a pure room that do more than shape values.
    pub fn impure(&self) -> Vec<String> {
        let product = |dependency: &Dependency| dependency.section != "dev-dependencies";
        let value = |dependency: &Dependency| {
            ARROWS.iter().any(|(room, _)| *room == dependency.package)
                || VALUE_CRATES.contains(&dependency.package)
        };
        let plain =
            |dependency: &Dependency| dependency.package != "uuid" || features(dependency.value).is_empty();
        self.complain(
            |dependency| product(dependency) && !(value(dependency) && plain(dependency)),
            |dependency| {
                format!(
                    "{} in {}: a pure room uses value crates only",
                    dependency.package, dependency.section
                )
            },
        )
    }

    /// Proofs libraries.
    pub fn provers(&self) -> Vec<String> {
        self.complain(
            |dependency| {
                PROVERS.contains(&dependency.package)
                    || PROVER_FAMILIES.iter().any(|family| dependency.package.starts_with(family))
            },
            |dependency| {
                format!(
                    "{} in {}: only proofs names the proofs libraries",
                    dependency.package, dependency.section
                )
            },
        )
    }

    /// Versions and paths of its own, and lints that are not the workspace's.
    pub fn not_from_the_workspace(&self) -> Vec<String> {
        let from_workspace = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
        let mut complaints = self.complain(
            |dependency| !from_workspace(dependency.value),
            |dependency| format!("{} in {}: say workspace = true", dependency.package, dependency.section),
        );
        if !self.table.get("lints").is_some_and(from_workspace) {
            complaints.push(format!("{}: lints must say workspace = true", self.name));
        }
        complaints
    }

    fn complain(
        &self,
        bad: impl Fn(&Dependency) -> bool,
        say: impl Fn(&Dependency) -> String,
    ) -> Vec<String> {
        let found = self.dependencies().into_iter().filter(|dependency| bad(dependency));
        found.map(|dependency| format!("{}: {}", self.name, say(&dependency))).collect()
    }

    /// Of all kinds and targets, by the name of the package, whatever it is renamed to.
    fn dependencies(&self) -> Vec<Dependency<'_>> {
        let targets = self.table.get("target").and_then(Value::as_table);
        let tables = targets.into_iter().flat_map(|targets| targets.values()).filter_map(Value::as_table);
        let mut found = Vec::new();
        for table in tables.chain([&self.table]) {
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                    let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
                    found.push(Dependency { section, package, value });
                }
            }
        }
        found
    }
}

fn features(value: &Value) -> &[Value] {
    value.get("features").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
