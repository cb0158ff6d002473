//! `simulate` as an operator runs it: every example, its JSON against the published schema, its chart, and what is refused.

mod system;

use std::path::{Path, PathBuf};

use serde_json::Value;
use system::{ok, refused, sealyard, snapshot};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/clusters").join(name)
}

fn is_valid(document: &Value) {
    let schema: Value =
        serde_json::from_str(include_str!("../cli/simulate.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let faults: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Runs an example with a chart and gives its figures and the chart.
fn run(home: &Path, name: &str, more: &[&str]) -> (Value, String) {
    let chart = home.join("chart.svg");
    let output = ok(sealyard(home)
        .arg("simulate")
        .arg(example(name))
        .args(["--json", "--gantt", "chart.svg"])
        .args(more));
    let document: Value = serde_json::from_str(&output).expect("stdout is one JSON document");
    is_valid(&document);
    let drawn = std::fs::read_to_string(chart).expect("the chart was written");
    well_formed(&drawn);
    assert_eq!(std::fs::read_dir(home).expect("home").count(), 1, "nothing but the chart is left");
    (document, drawn)
}

#[test]
fn every_example_runs_and_its_document_and_chart_are_sound() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = example("");
    let entries = std::fs::read_dir(&directory).expect("the examples");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for name in &names {
        let (figures, chart) = run(home.path(), name, &[]);
        let sectors = &figures["sectors"];
        let number = |field: &str| sectors[field].as_f64().expect("a number");
        assert!(number("finished") > 0.0, "{name}: {sectors}");
        let days = figures["horizon_ms"].as_f64().expect("a number") / 86_400_000.0;
        assert!(number("finished") <= number("ceiling_per_day") * days * 1.05, "{name}: {sectors}");
        assert!(chart.contains("PC1 of sector "), "{name}: whoever rests on a bar is told what it is");
    }
}

#[test]
fn the_same_file_gives_the_same_bytes_and_what_if_adds_to_them() {
    let home = tempfile::tempdir().expect("a directory");
    let first = run(home.path(), "all-in-one.toml", &[]);
    assert_eq!(first, run(home.path(), "all-in-one.toml", &[]));
    let (more, _) = run(home.path(), "all-in-one.toml", &["--what-if"]);
    assert_eq!(more["sectors"], first.0["sectors"]);
    let changes = more["bottleneck"]["changes"].as_array().expect("a list");
    assert!(!changes.is_empty());
    let now = more["sectors"]["per_day"].as_f64().expect("a number");
    for change in changes {
        let simulated = change["simulated_per_day"].as_f64().expect("--what-if runs each change");
        assert!(simulated > now, "{change}");
    }
}

#[test]
fn the_text_names_the_bottleneck_and_goes_to_stdout() {
    let home = tempfile::tempdir().expect("a directory");
    let text = ok(sealyard(home.path()).arg("simulate").arg(example("all-in-one.toml")));
    assert!(text.contains("Bottleneck  GPUs of epyc (PC2, C2)"), "{text}");
    assert_eq!(
        std::fs::read_dir(home.path()).expect("home").count(),
        0,
        "without --gantt nothing is written"
    );
    let lotus = ok(sealyard(home.path())
        .arg("simulate")
        .arg(example("all-in-one.toml"))
        .args(["--scheduler", "lotus"]));
    assert!(lotus.contains("scheduler lotus"), "{lotus}");
}

#[test]
fn files_that_cannot_be_used() {
    let home = tempfile::tempdir().expect("a directory");
    let write = |text: &str| std::fs::write(home.path().join("c.toml"), text).expect("a file");
    let good = std::fs::read_to_string(example("all-in-one.toml")).expect("the example");

    let line = refused(sealyard(home.path()).args(["simulate", "nowhere.toml"]), 9);
    assert!(line.contains("nowhere.toml"), "{line}");
    let line = refused(sealyard(home.path()).args(["simulate", "."]), 9);
    assert!(line.contains("directory"), "{line}");

    write(&good.replace("\"512 GiB\"", "\"512\""));
    let line = refused(sealyard(home.path()).args(["simulate", "c.toml"]), 9);
    assert!(line.starts_with("error[9]: c.toml:") && line.contains("machine.memory = \"512\""), "{line}");
    assert!(line.contains("such as \"512 GiB\""), "{line}");

    write(&good.replace("\"512 GiB\"", "\"32 GiB\""));
    let line = refused(sealyard(home.path()).args(["simulate", "c.toml"]), 9);
    assert!(line.contains("no machine could ever run PC1") && line.contains("56 GiB"), "{line}");
}

#[test]
fn charts_that_cannot_be_drawn_are_refused_before_anything_runs() {
    let home = tempfile::tempdir().expect("a directory");
    let one = example("all-in-one.toml");
    std::fs::write(home.path().join("old.svg"), "what was there").expect("a file");
    std::fs::create_dir(home.path().join("dir.svg")).expect("a directory");
    let before = snapshot(home.path());
    let table: [(&[&str], i32, &str); 6] = [
        (&["--gantt", "no/such/dir/chart.svg"], 1, "no/such/dir/chart.svg"),
        (&["--gantt", "dir.svg"], 1, "dir.svg: is a directory"),
        (&["--gantt", "old.svg", "--from", "soon"], 2, "--from \"soon\" is no time"),
        (&["--gantt", "old.svg", "--from", "5d", "--to", "4d"], 2, "from 120h00m to 96h00m shows nothing"),
        (&["--gantt", "old.svg", "--to", "900d"], 2, "within the horizon"),
        (&["--from", "5d"], 2, "--gantt"),
    ];
    for (args, code, words) in table {
        let mut command = sealyard(home.path());
        let output = system::run_within(command.arg("simulate").arg(&one).args(args), system::COMMAND_MAX);
        let stderr = system::text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?} must say {words}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(before, snapshot(home.path()), "{args:?} changed something");
    }
}

/// One root; every element closed in order; attributes in quotes and each once; entities that XML knows.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.trim_end();
    let mut roots = 0;
    while let Some(start) = rest.find('<') {
        plain(&rest[..start]);
        assert!(!open.is_empty() || rest[..start].trim().is_empty(), "text outside of the root");
        let end = start + rest[start..].find('>').expect("a tag that is closed");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "elements close in order");
            continue;
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name:?} is no element");
        roots += usize::from(open.is_empty());
        let mut seen = Vec::new();
        while !attributes.trim().is_empty() {
            let (key, value) = attributes.trim_start().split_once("=\"").expect("a value in quotes");
            let (value, after) = value.split_once('"').expect("a quote that is closed");
            plain(value);
            assert!(!seen.contains(&key), "{key} stands twice in <{tag}>");
            seen.push(key);
            attributes = after;
        }
        if !is_empty {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.is_empty(), "{open:?} are not closed; {rest:?}");
    assert_eq!(roots, 1);
}

fn plain(text: &str) {
    for part in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| part.starts_with(entity));
        assert!(known, "&{} is no entity of XML", part.chars().take(8).collect::<String>());
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
