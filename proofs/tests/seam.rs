//! The executor seam: files in, files out, exit codes; and `EXECUTORS.md`, whose examples must be true.

use std::path::Path;

use proofs::{Outcome, SeamError, exec_files};
use sealtasks::{ExecutorReport, ExecutorRequest, FailureClass, TaskInput, TaskOutput};
use serde_json::Value;

mod world;

use world::{Content, World, sector, unpadded};

fn exchange(world: &World, request: &[u8]) -> (Outcome, ExecutorReport) {
    let (input, output) = (world.root().join("input.json"), world.root().join("output.json"));
    std::fs::write(&input, request).expect("written");
    let outcome = exec_files(&input, &output).expect("the report is written");
    let report = std::fs::read(&output).expect("the report");
    assert!(!world.root().join("output.json.tmp").exists(), "no temporary file stays");
    (outcome, serde_json::from_slice(&report).expect("a report"))
}

fn data_cid_request(world: &World) -> Value {
    let input = sealtasks::DataCidInput { size: unpadded(1016), source: sealtasks::PieceSource::Zeros };
    serde_json::to_value(world.request(TaskInput::DataCid(input))).expect("JSON")
}

#[test]
fn a_request_file_becomes_a_report_file() {
    let world = World::new(sector(1000, 1));
    let (outcome, report) = exchange(&world, data_cid_request(&world).to_string().as_bytes());
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Done, 0));
    let ExecutorReport::Done(TaskOutput::DataCid(piece)) = report else { panic!("{report:?}") };
    let zeros = world.add_piece(&[], &Content::Zeros(1016)).expect("a piece");
    assert_eq!(piece, zeros);
}

#[test]
fn a_failed_task_is_a_report_and_exit_code_1() {
    let world = World::new(sector(1000, 1));
    let request = world.request(TaskInput::Finalize(sealtasks::FinalizeInput {}));
    let (outcome, report) = exchange(&world, &serde_json::to_vec(&request).expect("JSON"));
    assert_eq!((outcome, outcome.exit_code()), (Outcome::Failed, 1));
    assert!(matches!(report, ExecutorReport::Failed(failure) if failure.class == FailureClass::Environment));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let world = World::new(sector(1000, 1));
    let good = data_cid_request(&world);
    let with = |pointer: &str, value: Value| {
        let mut request = good.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = request.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        parent.insert(key.to_owned(), value);
        request.to_string()
    };
    let cases = [
        (with("/version", 2.into()), "`version` is 2; this executor speaks version 1"),
        (with("/version", "1".into()), "`version` is \"1\""),
        (with("/sort", true.into()), "`sort`"),
        (with("/sector/size", 2048.into()), "`size`"),
        (with("/sector/id/name", "a".into()), "`name`"),
        (with("/work/input/speed", 1.into()), "`speed`"),
        (with("/work/priority", 1.into()), "priority"),
        (with("/work/task", "PC3".into()), "PC3"),
        (with("/sector/proof", 20.into()), "20 is no registered seal proof"),
        ("{".to_owned(), "no JSON"),
        ("[]".to_owned(), "`version` is missing"),
    ];
    for (request, words) in cases {
        let (outcome, report) = exchange(&world, request.as_bytes());
        assert_eq!((outcome, outcome.exit_code()), (Outcome::Refused, 2), "{request}");
        let ExecutorReport::Failed(failure) = report else { panic!("{request} gave {report:?}") };
        assert_eq!(failure.class, FailureClass::Environment);
        assert!(failure.message.contains(words), "{words:?} is not in {:?}", failure.message);
    }
}

#[test]
fn an_absent_request_is_reported_and_an_impossible_report_is_an_error() {
    let world = World::new(sector(1000, 1));
    let output = world.root().join("output.json");
    let absent = world.root().join("absent.json");
    assert_eq!(exec_files(&absent, &output).expect("a report"), Outcome::Refused);
    let report = std::fs::read_to_string(&output).expect("the report");
    assert!(report.contains(absent.to_str().expect("UTF-8")), "{report}");

    let error =
        exec_files(&absent, &world.root().join("no/such/directory/out.json")).expect_err("nowhere to write");
    assert!(matches!(error, SeamError::Report { .. }));
    assert_eq!(error.exit_code(), 3);
    assert!(matches!(exec_files(&absent, Path::new("/")), Err(SeamError::OutputPath { .. })));
}

/// The JSON blocks of the document, each with the heading it stands under.
fn examples() -> Vec<(String, String)> {
    let text = include_str!("../EXECUTORS.md");
    let mut examples = Vec::new();
    let (mut heading, mut block) = (String::new(), None::<String>);
    for line in text.lines() {
        match &mut block {
            Some(_) if line == "```" => examples.extend(block.take().map(|json| (heading.clone(), json))),
            Some(json) => json.push_str(line),
            None if line == "```json" => block = Some(String::new()),
            None => {
                if let Some(title) = line.strip_prefix("### ") {
                    title.clone_into(&mut heading);
                }
            }
        }
    }
    examples
}

/// The code a task or output carries in JSON.
fn code(value: &Value) -> Option<&str> {
    value.get("task").and_then(Value::as_str)
}

#[test]
fn the_documents_examples_are_what_the_types_read_and_write() {
    let mut tasks = Vec::new();
    for (heading, json) in examples() {
        let given: Value =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{heading}: {error}\n{json}"));
        let again = if given.get("version").is_some() {
            let request: ExecutorRequest = serde_json::from_value(given.clone()).expect(&heading);
            assert!(heading.starts_with(code(&given["work"]).expect("a task")), "{heading}");
            tasks.push(code(&given["work"]).expect("a task").to_owned());
            serde_json::to_value(request)
        } else {
            let report: ExecutorReport = serde_json::from_value(given.clone()).expect(&heading);
            let done = given.get("done").and_then(code);
            assert!(done.is_none_or(|task| heading.starts_with(task)), "{heading}");
            serde_json::to_value(report)
        };
        assert_eq!(again.expect("JSON"), given, "{heading}: every key is one that the types write");
    }
    tasks.sort();
    assert_eq!(
        tasks,
        ["AP", "C1", "C2", "DC", "FIN", "FUS", "PC1", "PC2", "SCRUB", "UNS", "VANILLA", "VERIFY"]
    );
}

#[test]
fn the_documents_small_examples_come_out_when_they_are_run() {
    let blocks = examples();
    let dc: Vec<_> = blocks.iter().filter(|(heading, _)| heading.starts_with("DC")).collect();
    let [(_, request), (_, report)] = dc.as_slice() else { panic!("one request and one report") };
    let world = World::new(sector(1000, 1));
    let (_, ours) = exchange(&world, request.as_bytes());
    assert_eq!(ours, serde_json::from_str::<ExecutorReport>(report).expect("a report"));
}
