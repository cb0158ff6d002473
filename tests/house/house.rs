//! The rules of the house, held over every manifest and every source file of the workspace. A package of its own, so
//! that it is built and run in seconds, without the proofs.
//!
//! Each rule is a function from text to complaints; it is tried on a small bad example here before it is believed.

mod manifest;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use manifest::Manifest;
use source::Source;

/// Rooms whose decisions depend on nothing but what they are told.
const PURE: [&str; 3] = ["sealtasks", "sched", "pipeline"];
/// The room that may name the proofs libraries.
const PROVER: &str = "proofs";
/// The room that may print.
const PRINTER: &str = "cli";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is two levels up")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifests() -> Vec<Manifest> {
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().expect("Cargo.toml is TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members are a list");
    let directories = members.iter().map(|member| member.as_str().expect("a member is a text"));
    directories.map(|directory| Manifest::parse(&read(&root().join(directory).join("Cargo.toml")))).collect()
}

/// Every Rust file of the workspace, with its path from the root.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(directory) = open.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.expect("a directory can be read to its end").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_link = path.is_symlink();
            if path.is_dir() && !is_link && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root()).expect("found below the root");
                found.push(Source::new(&relative.to_string_lossy(), &read(&path)));
            }
        }
    }
    assert!(found.len() > 20, "only {} Rust files were found", found.len());
    found
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[track_caller]
fn all_sources(rule: impl Fn(&Source) -> Vec<String>) {
    none(sources().iter().flat_map(rule).collect());
}

#[test]
fn rooms_depend_only_downwards() {
    none(manifests().iter().flat_map(Manifest::wrong_arrows).collect());
}

#[test]
fn versions_and_lints_stand_in_the_workspace() {
    none(manifests().iter().flat_map(Manifest::not_from_the_workspace).collect());
}

#[test]
fn pure_rooms_depend_on_values_only() {
    let pure = manifests().into_iter().filter(|manifest| PURE.contains(&manifest.name.as_str()));
    let pure: Vec<_> = pure.collect();
    assert_eq!(pure.len(), PURE.len(), "a pure room is missing");
    none(pure.iter().flat_map(Manifest::impure).collect());
}

#[test]
fn pure_rooms_name_nothing_impure() {
    all_sources(|source| if source.is_product_of(&PURE) { source.impure() } else { Vec::new() });
}

#[test]
fn only_proofs_knows_the_proofs_libraries() {
    none(manifests().iter().filter(|manifest| manifest.name != PROVER).flat_map(Manifest::provers).collect());
    all_sources(|source| if source.room() == PROVER { Vec::new() } else { source.provers() });
}

#[test]
fn only_cli_prints() {
    all_sources(|source| {
        let free = source.room() == PRINTER || source.is_test_file() || source.is_build_script();
        if free { Vec::new() } else { source.prints() }
    });
}

#[test]
fn files_are_short() {
    all_sources(Source::too_long);
}

#[test]
fn nothing_is_left_to_be_done() {
    all_sources(Source::unfinished);
}

#[test]
fn no_test_is_switched_off_and_none_sleeps() {
    all_sources(Source::ignored_tests);
    all_sources(Source::sleeping_tests);
}

/// A rule must complain about `bad`, and must not about `good`.
#[track_caller]
fn catches(rule: impl Fn(&Source) -> Vec<String>, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for (path, text) in bad {
        assert!(!rule(&Source::new(path, text)).is_empty(), "no complaint about {path}: {text}");
    }
    for (path, text) in good {
        none(rule(&Source::new(path, text)));
    }
}

const LIB: &str = "sched/src/lib.rs";
const TEST: &str = "sched/tests/story.rs";

#[test]
fn impurity_is_caught_however_it_is_written() {
    let bad = [
        "use tokio::sync::mpsc;",
        "fn f() { tokio::spawn(g()); }",
        "use std::fs;",
        "use std::{collections::BTreeMap, fs::File};",
        "use std::{collections::{BTreeMap, BTreeSet}, net};",
        "use std::{io, time::{Duration, Instant}};",
        "fn f() { let t = std::time::SystemTime::now(); }",
        "use std::time; fn f() { time::Instant::now(); }",
        "use std :: net :: TcpStream;",
        "fn f() { std::env::var(\"X\"); }",
        "fn f() { std::process::exit(1); }",
        "use std::thread;",
        "fn f() { rand::random::<u8>(); }",
        "use getrandom::fill;",
        "fn f() -> Uuid { Uuid::new_v4() }",
        "fn f() { let s = \"// no comment\"; std::fs::read(s); }",
        "fn f(c: char) -> bool { c == '\"' } use std::fs; // \"",
        "use std::*;",
    ];
    let good = [
        "//! Never tokio, std::fs, std::env.\nuse std::time::Duration;",
        "/* std::fs /* std::net */ std::env */ use std::{fmt, mem};",
        "const TEXT: &str = \"std::fs tokio\"; const RAW: &str = r#\"std::fs \" tokio\"#;",
        "fn f<'a>(operand: &'a str) -> &'a str { operand } // tokio",
        "struct Instant(u64); use crate::process;",
    ];
    catches(Source::impure, &bad.map(|text| (LIB, text)), &good.map(|text| (LIB, text)));
}

#[test]
fn proofs_libraries_are_caught() {
    let bad = [
        "use filecoin_proofs_api::seal;",
        "fn f() { storage_proofs_core::x(); }",
        "use bellperson::groth16;",
    ];
    let good = ["use proofs::exec;", "//! filecoin_proofs", "const FILECOIN_PROOFS: u8 = 0;"];
    catches(Source::provers, &bad.map(|text| (LIB, text)), &good.map(|text| (LIB, text)));
}

#[test]
fn printing_is_caught() {
    let bad = ["println!(\"x\")", "print! (\"x\")", "std::eprintln!(\"x\")", "eprint!{\"x\"}", "dbg!(x)"];
    let good = ["tracing::info!(\"println!(x)\")", "writeln!(f, \"x\")", "fn println() {}"];
    catches(Source::prints, &bad.map(|text| (LIB, text)), &good.map(|text| (LIB, text)));
}

/// In the samples of this test and the next, one letter of each mark is an escape: a search of the tree for such
/// marks then finds real ones alone.
#[test]
fn length_and_loose_ends_are_caught() {
    let (long, short) = ("\n".repeat(500), "\n".repeat(499));
    catches(Source::too_long, &[(LIB, long.as_str())], &[(LIB, short.as_str())]);
    let bad =
        ["fn f() { to\u{64}o!() }", "fn f() { unimpl\u{65}mented!(\"later\") }", "fn f() { to\u{64}o !() }"];
    let good = ["// to\u{64}o!()", "fn todo() {}", "const T: &str = \"to\u{64}o!()\";"];
    catches(Source::unfinished, &bad.map(|text| (LIB, text)), &good.map(|text| (LIB, text)));
}

#[test]
fn idle_tests_are_caught() {
    let bad = [
        "#[test]\n#[i\u{67}nore]\nfn f() {}",
        "#[i\u{67}nore = \"slow\"] fn f() {}",
        "#[cfg_attr(x, i\u{67}nore)] fn f() {}",
    ];
    let good = ["// #[i\u{67}nore]", "fn ignore() {}"];
    catches(Source::ignored_tests, &bad.map(|text| (TEST, text)), &good.map(|text| (TEST, text)));
    let inside = "fn f() {} #[cfg(test)] mod tests { fn g() { std::thread::sl\u{65}ep(d) } }";
    let outside = "fn f() { sl\u{65}ep(d) } #[cfg(test)] mod tests { fn g() {} } fn h() { sl\u{65}ep(d) }";
    let elsewhere = "#[cfg(test)] mod tests; fn f() { sl\u{65}ep(d) }";
    let bad = [
        (TEST, "fn f() { tokio::time::sl\u{65}ep(d).await }"),
        (LIB, inside),
        ("tests/seal.rs", "fn f() { sl\u{65}ep(d) }"),
    ];
    catches(
        Source::sleeping_tests,
        &bad,
        &[(LIB, outside), (LIB, elsewhere), (TEST, "// sl\u{65}ep(1)\nfn f() {}")],
    );
}

#[test]
fn wrong_manifests_are_caught() {
    let parse = |text: &str| Manifest::parse(&format!("[lints]\nworkspace = true\n{text}"));
    let arrows = |text| !parse(text).wrong_arrows().is_empty();
    assert!(arrows("[package]\nname = \"worker\"\n[dependencies]\nmanager = { workspace = true }"));
    assert!(arrows("[package]\nname = \"sched\"\n[dependencies]\npipeline = { workspace = true }"));
    assert!(arrows("[package]\nname = \"sched\"\n[dev-dependencies]\nstores = { workspace = true }"));
    assert!(arrows(
        "[package]\nname = \"rpc\"\n[dependencies]\nother = { package = \"stores\", path = \"x\" }"
    ));
    assert!(arrows(
        "[package]\nname = \"rpc\"\n[target.'cfg(unix)'.dependencies]\nstores = { workspace = true }"
    ));
    assert!(arrows("[package]\nname = \"attic\""));
    assert!(!arrows(
        "[package]\nname = \"worker\"\n[dependencies]\nrpc = { workspace = true }\nserde = \"1\""
    ));
    assert!(!arrows("[package]\nname = \"sealyard\"\n[dependencies]\nproofs = { workspace = true }"));

    let impure = |text| !parse(text).impure().is_empty();
    assert!(impure("[package]\nname = \"sched\"\n[dependencies]\ntokio = { workspace = true }"));
    assert!(impure(
        "[package]\nname = \"sched\"\n[dependencies]\nuuid = { workspace = true, features = [\"v4\"] }"
    ));
    assert!(!impure("[package]\nname = \"sched\"\n[dependencies]\nuuid = { workspace = true }"));

    let provers = |text| !parse(text).provers().is_empty();
    assert!(provers(
        "[package]\nname = \"worker\"\n[dev-dependencies]\nfilecoin-proofs-api = { workspace = true }"
    ));
    assert!(!provers("[package]\nname = \"worker\"\n[dependencies]\nproofs = { workspace = true }"));

    let loose = |text| !Manifest::parse(text).not_from_the_workspace().is_empty();
    assert!(loose("[package]\nname = \"rpc\"\n[lints]\nworkspace = true\n[dependencies]\nserde = \"1\""));
    assert!(loose("[package]\nname = \"rpc\"\n[dependencies]\nserde = { workspace = true }"));
    assert!(!loose(
        "[package]\nname = \"rpc\"\n[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true"
    ));
}
