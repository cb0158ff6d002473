//! Each command of pipelines, repair and rebuild as it is documented, with its other names, flags and defaults; and what every
//! command has.

use std::collections::BTreeMap;

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Command};

/// Commands without `--json`, and what they say their data by.
const WITHOUT_JSON: [(&str, &str); 4] = [
    ("completions", "a script for a shell"),
    ("exec", "its report, which is JSON"),
    ("run", "it serves until it is stopped"),
    ("worker run", "it serves until it is stopped"),
];

fn parsed(line: &str) -> Cli {
    let words = std::iter::once("sealyard").chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// What stands behind the name of the command.
fn arguments(line: &str) -> String {
    let text = format!("{:?}", parsed(line).command);
    let begins = text.find("Args {").unwrap_or_else(|| panic!("{line}: {text}"));
    text[begins..].trim_end_matches(')').to_owned()
}

const LINES: [&str; 47] = [
    "sectors pledge --count 3",
    "sectors list",
    "sectors status 7",
    "sectors status --log 7",
    "sectors add-piece one.car",
    "sectors remove --really-do-it 7",
    "sectors update-state --really-do-it 7 Proving",
    "sealing why pledge",
    "init --actor f01000 --sector-size 32GiB",
    "init --actor f01000 --nosync",
    "run --send-messages",
    "run --offline",
    "run --nosync",
    "repair export --miner f01000 1 2 3",
    "repair export --miner f01000 1-100,205",
    "export --miner f01000 1 2 3",
    "repair run --sectors-recovery-metadata F --parallel 1 --sealing-result ~/sector --sealing-temp ~/temp",
    "repair run --metadata F --parallel 4 7 9-12",
    "repair recover --recovery F",
    "recover --metadata F",
    "repair run --precommit-json F --miner f01000",
    "repair run --precommit-json F --miner f01000 --nosync",
    "repair run --precommit-json F --miner f01000 --manager",
    "repair run --manager --metadata F --stagger 600 1-100",
    "repair run --metadata F --piece CID=one.car --piece CID2=https://x/y",
    "storage attach --init --store /hdd/sector",
    "sectors rebuild f01000 1 2-4",
    "sectors rebuild 7",
    "util sealer sectors rebuild f01000 1 2-4",
    "sectors list --rebuild",
    "sectors list --rebuild --sealing=false",
    "sectors list --rebuild --sealing=false --offline",
    "util sealer sectors list --rebuild --sealing=false --offline",
    "sectors state f01000 7",
    "sectors state f01000 7 --offline",
    "util sealer sectors state f01000 7 --offline",
    "worker run --plan rebuild",
    "worker list",
    "worker info name",
    "worker info 127.0.0.1:3456",
    "worker pause name",
    "worker resume name",
    "proving check",
    "proving check --only-bad --storage-id 7c1f 1 2",
    "proving check f02000/7",
    "miners add f02000",
    "miners remove f02000",
];

#[test]
fn every_line_parses() {
    for line in LINES {
        parsed(line);
    }
}

/// Every command below this one, by its words, itself left out.
fn below(command: &clap::Command, words: &str) -> BTreeMap<String, clap::Command> {
    let named = |one: &clap::Command| format!("{words} {}", one.get_name()).trim().to_owned();
    let with_its_own = |one: &clap::Command| {
        let mut found = below(one, &named(one));
        found.insert(named(one), one.clone());
        found
    };
    command.get_subcommands().flat_map(with_its_own).collect()
}

#[test]
fn every_command_prints_json_and_shows_an_example() {
    let all = below(&Cli::command(), "");
    assert!(all.len() > 70 && all.contains_key("util sealer sectors list"), "{}", all.len());
    let lacks_example = |one: &clap::Command| {
        let help = one.get_after_help().map(ToString::to_string);
        !help.is_some_and(|help| help.contains("Example") && help.contains("sealyard "))
    };
    let without: Vec<_> = all.iter().filter(|(_, one)| lacks_example(one)).map(|(words, _)| words).collect();
    assert!(without.is_empty(), "no example: {without:?}");
    // One that cannot be given alone is only the way to others.
    let is_one = |one: &clap::Command| !one.is_subcommand_required_set();
    let has_json = |one: &clap::Command| one.get_arguments().any(|arg| arg.get_long() == Some("json"));
    let lacking = all.iter().filter(|(_, one)| is_one(one) && !has_json(one));
    let lacking: Vec<&str> = lacking.map(|(words, _)| words.as_str()).collect();
    assert_eq!(lacking, WITHOUT_JSON.map(|(words, _)| words));
}

#[test]
fn other_names_mean_the_same() {
    let same = [
        ("repair export --miner f01000 1-100,205", "export --miner f01000 1-100,205"),
        ("repair run --sectors-recovery-metadata F 7", "repair run --metadata F 7"),
        ("repair run --sectors-recovery-metadata F 7", "repair run --recovery F 7"),
        ("repair run --metadata F 7", "repair recover --metadata F 7"),
        ("repair run --metadata F 7", "recover --metadata F 7"),
        ("sectors rebuild f01000 1 2-4", "util sealer sectors rebuild f01000 1 2-4"),
        ("sectors list --rebuild --sealing=false", "util sealer sectors list --rebuild --sealing=false"),
        ("sectors state f01000 7 --offline", "util sealer sectors state f01000 7 --offline"),
        ("sectors pledge --count 3", "pledge --count 3"),
    ];
    for (line, other) in same {
        assert_eq!(arguments(line), arguments(other), "{other}");
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let Command::Recover(repair) = parsed("recover --metadata F").command else { panic!("another command") };
    assert_eq!((repair.sealing_result.as_str(), repair.sealing_temp.as_str()), ("~/sector", "~/temp"));
    assert_eq!((repair.parallel, repair.stagger, repair.manager), (1, None, false));
    assert!(repair.numbers.is_empty(), "all that the file has");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for line in [
        "repair run",
        "repair run --metadata F --precommit-json F --miner f01000",
        "repair run --precommit-json F",
        "repair run --manager --metadata F --sealing-temp /nvme",
        "repair run --metadata F --parallel 0",
        "repair export --miner f01000",
        "sectors rebuild",
        "worker run --plan snapup",
    ] {
        let words = std::iter::once("sealyard").chain(line.split_whitespace());
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}
