//! Every kind of mistake in a cluster file is told with its line, its key, what stands there and what would be right.

use super::file;

/// A small cluster that works. A mistake is one line put in place of another.
const GOOD: &str = r#"sector_size = "32GiB"
horizon = "2 days"

[[machine]]
name = "one"
cpus = 64
memory = "256 GiB"
gpus = 1
tasks = ["AP", "PC1", "PC2", "C1", "C2", "FIN", "GET"]

[[machine.path]]
name = "disk"
size = "40 TiB"
seal = true
store = true

[[arrivals]]
sectors = "cc"
backlog = 20
"#;

/// Replaces the line that begins so, and gives what the reader says.
#[track_caller]
fn told(line: &str, by: &str) -> String {
    let lines: Vec<&str> = GOOD.lines().map(|old| if old.starts_with(line) { by } else { old }).collect();
    let text = lines.join("\n");
    assert_ne!(text, GOOD.trim_end(), "no line begins with {line}");
    file::parse("c.toml", &text).map(|_| ()).expect_err("a mistake").to_string()
}

#[test]
fn the_good_one_is_good() {
    assert!(file::parse("c.toml", GOOD).is_ok());
}

/// The beginning of a line, what is put in its place, and what the reader says.
const VALUES: &[(&str, &str, &str)] = &[
    (
        "horizon",
        "horizon = \"2 weeks\"",
        "c.toml:2: horizon = \"2 weeks\": write a time with its units (d, h, m, s, ms), such as \"3h30m\" or \"100.6s\"",
    ),
    ("horizon", "horizon = \"800 days\"", "c.toml:2: horizon = \"800 days\": must be at most 730 days"),
    ("horizon", "horizon = \"0s\"", "c.toml:2: horizon = \"0s\": must be longer than nothing"),
    (
        "sector_size",
        "sector_size = \"33GiB\"",
        "c.toml:1: sector_size = \"33GiB\": write one of \"2KiB\", \"8MiB\", \"512MiB\", \"32GiB\", \"64GiB\"",
    ),
    (
        "memory",
        "memory = \"256\"",
        "c.toml:7: machine.memory = \"256\": write a whole number of bytes with its unit, such as \"512 GiB\"",
    ),
    (
        "memory",
        "memory = 256",
        "c.toml:7: machine.memory = 256: write a whole number of bytes with its unit, such as \"512 GiB\"",
    ),
    ("memory", "memory = \"0 B\"", "c.toml:7: machine.memory = \"0 B\": must be more than nothing"),
    ("memory", "memory = \"2000 PiB\"", "c.toml:7: machine.memory = \"2000 PiB\": must be at most 1024 PiB"),
    ("cpus", "cpus = -4", "c.toml:6: machine.cpus = -4: write a whole number from 1 to 1048576"),
    ("cpus", "cpus = 1.5", "c.toml:6: machine.cpus = 1.5: write a whole number from 1 to 1048576"),
    (
        "gpus",
        "gpus = \"RTX\"",
        "c.toml:8: machine.gpus = \"RTX\": write how many, up to 256, or their names in square brackets",
    ),
    (
        "tasks",
        "tasks = [\"AP\", \"PC9\"]",
        "c.toml:9: machine.tasks = \"PC9\": write one of AP, PC1, PC2, C1, C2, FIN, GET",
    ),
    ("tasks", "tasks = [\"AP\", \"AP\"]", "c.toml:9: machine.tasks = \"AP\": stands here twice"),
    (
        "name = \"one\"",
        "name = \"a b\"",
        "c.toml:5: machine.name = \"a b\": write 1 to 40 letters, digits, hyphens, underscores or dots",
    ),
    ("seal", "seal = \"yes\"", "c.toml:14: machine.path.seal = \"yes\": write true or false"),
    ("sectors", "sectors = \"snap\"", "c.toml:18: arrivals.sectors = \"snap\": write \"cc\" or \"deals\""),
    ("backlog", "backlog = 0", "c.toml:19: arrivals.backlog = 0: write a whole number from 1 to 200000"),
    (
        "backlog",
        "per_day = 0.0001",
        "c.toml:19: arrivals.per_day = 0.0001: write a number from 0.001 to 1000000 with at most three decimals",
    ),
    (
        "backlog",
        "per_day = 900000",
        "c.toml:19: arrivals.per_day = 900000: makes 1800000 sectors over the horizon, and at most 200000 can be simulated",
    ),
    (
        "gpus",
        "speed = 0.001",
        "c.toml:8: machine.speed = 0.001: write a number from 0.01 to 100 with at most three decimals",
    ),
    (
        "gpus",
        "bandwidth = \"10 Gb\"",
        "c.toml:8: machine.bandwidth = \"10 Gb\": write a rate above nothing with its unit, such as \"10 Gbit/s\" or \"500 MiB/s\"",
    ),
    (
        "gpus",
        "memory_used = \"300 GiB\"",
        "c.toml:8: machine.memory_used = \"300 GiB\": must be at most memory",
    ),
    ("gpus", "count = 3000", "c.toml:8: machine.count = 3000: write a whole number from 1 to 2000"),
    (
        "sector_size",
        "starts = \"tomorrow\"",
        "c.toml:1: starts = \"tomorrow\": write a day such as \"2026-03-01\"",
    ),
    (
        "sector_size",
        "policy = \"best\"",
        "c.toml:1: policy = \"best\": write utilization, spread, spread-tasks, spread-qcount or random",
    ),
    (
        "sector_size",
        "warm_up = \"9 days\"",
        "c.toml:1: warm_up = \"9 days\": must be shorter than the horizon, or nothing is left to be measured",
    ),
    (
        "sector_size",
        "tasks.PC1.spread = \"95%\"",
        "c.toml:1: tasks.PC1.spread = \"95%\": write a share from \"0%\" to \"90%\", to a tenth of a percent",
    ),
    (
        "sector_size",
        "tasks.PC1 = { memory_min = \"9 GiB\", memory_max = \"8 GiB\" }",
        "c.toml:1: tasks.PC1.memory_max = \"8 GiB\": must be at least memory_min, 9663676416 B",
    ),
];

#[test]
fn values_are_told_with_line_key_value_and_what_would_be_right() {
    for (line, by, expected) in VALUES {
        assert_eq!(told(line, by), *expected);
    }
}

#[test]
fn keys_that_mean_nothing_and_keys_that_are_missing() {
    let table = [
        (
            "gpus",
            "gpu = 1",
            "c.toml:8: machine.gpu is not known here; known keys: name, count, cpus, memory,",
        ),
        (
            "sector_size",
            "horizont = \"1d\"",
            "c.toml:1: horizont is not known here; known keys: sector_size, horizon,",
        ),
        (
            "sector_size",
            "tasks.UNS.duration = \"3h\"",
            "c.toml:1: tasks.UNS is not known here; tasks with a time: AP, PC1, PC2, C1, C2, FIN",
        ),
        (
            "gpus",
            "caps = { WDP = 1 }",
            "c.toml:8: machine.caps.WDP is not known here; tasks: AP, PC1, PC2, C1, C2, FIN, GET",
        ),
        (
            "gpus",
            "needs = { PC1 = { ram = \"1 GiB\" } }",
            "c.toml:8: machine.needs.PC1.ram is not known here; known keys: memory_max, memory_min,",
        ),
        ("cpus", "", "c.toml:4: machine.cpus is missing; write its number of CPU threads"),
        ("backlog", "", "c.toml:17: arrivals.per_day is missing; write per_day = 12 or backlog = 500"),
        (
            "sectors",
            "",
            "c.toml:17: arrivals.sectors is missing; write sectors = \"cc\" or sectors = \"deals\"",
        ),
        (
            "tasks",
            "tasks = [\"AP\"]",
            "c.toml:1: machine.tasks is missing; no machine offers PC1, so no sector could ever be finished; add it to one",
        ),
        (
            "store",
            "",
            "c.toml:1: machine.path is missing; no path has store = true, so nothing could be kept",
        ),
        (
            "seal",
            "seal = false",
            "c.toml:1: machine.path is missing; no path has seal = true, so nothing could be sealed",
        ),
    ];
    for (line, by, expected) in table {
        let said = told(line, by);
        assert!(said.starts_with(expected), "{said}\nshould begin with\n{expected}");
    }
}

#[test]
fn parts_that_do_not_go_together() {
    let machine = "[[machine]]\nname = \"one\"\ncpus = 1\nmemory = \"1 GiB\"\ntasks = []\n";
    let fault = |rest: &str| format!("backlog = 20\n[[fault]]\n{rest}");
    let table = [
        (
            "backlog = 20\nper_day = 3".to_owned(),
            "goes not with per_day; write one of them, or two [[arrivals]]",
        ),
        (
            "backlog = 20\npattern = \"even\"".to_owned(),
            "goes with per_day; a backlog is there from the start",
        ),
        (format!("backlog = 20\n{machine}"), "a second machine would be called one; give it another name"),
        (
            fault("machine = \"two\"\ndown = true\nfrom = \"1h\"\nto = \"2h\""),
            "no such machine; there are one",
        ),
        (fault("machine = \"one\"\ndown = true\nfrom = \"3h\"\nto = \"2h\""), "must be later than from"),
        (fault("machine = \"one\"\nfrom = \"1h\"\nto = \"2h\""), "write down = true or slow_by = 2.0"),
        (
            fault("machine = \"one\"\nslow_by = 0.5\nfrom = \"1h\"\nto = \"2h\""),
            "write a number from 1.001 to 1000",
        ),
        (
            fault(
                "machine = \"one\"\ndown = true\nfrom = \"1h\"\nto = \"3h\"\n[[fault]]\nmachine = \"one\"\ndown = true\nfrom = \"2h\"\nto = \"4h\"",
            ),
            "meets an earlier fault of one",
        ),
        (
            "backlog = 20\n[[shared_path]]\nname = \"nas\"\nsize = \"1 TiB\"\nseal = true\nmachines = [\"two\"]"
                .to_owned(),
            "no such [[machine]]; write one of one",
        ),
    ];
    for (by, expected) in table {
        let said = told("backlog", &by);
        assert!(said.contains(expected), "{said}\nshould contain\n{expected}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let said = told("cpus", "cpus = = 4");
    assert!(said.starts_with("c.toml:6: is not TOML: "), "{said}");
    let said = told("cpus", "cpus = 4\ncpus = 5");
    assert!(said.starts_with("c.toml:7: is not TOML: ") && said.contains("duplicate"), "{said}");
}
