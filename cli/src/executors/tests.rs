use std::time::Duration;

use super::*;

fn args(executor: &[&str]) -> ExecutorArgs {
    ExecutorArgs {
        executor: executor.iter().map(|text| (*text).to_owned()).collect(),
        rehearsal_speed: None,
        rehearsal_profile: None,
        rehearsal_machine: Vec::new(),
    }
}

fn choose(args: &ExecutorArgs) -> Result<Executors, String> {
    Executors::choose(args, Path::new("/opt/sealyard")).map_err(|failure| failure.to_string())
}

#[test]
fn a_program_takes_the_place_of_one_task_and_a_rehearsal_of_all() {
    let chosen = choose(&args(&["pc2=/bin/sh"])).unwrap();
    let expected = Replacement { program: "/bin/sh".into(), arguments: Vec::new() };
    assert_eq!(chosen.replacements, [(TaskType::PreCommit2, expected.clone())].into());
    assert!(chosen.rehearsal.is_none() && chosen.need_parameters());

    let mut mixed = args(&["all=rehearsal", "C2=/bin/sh"]);
    (mixed.rehearsal_speed, mixed.rehearsal_machine) = (Some(1000.0), vec!["disk=2TiB".into()]);
    let chosen = choose(&mixed).unwrap();
    assert_eq!(chosen.replacements.len(), tasks().count());
    assert_eq!(chosen.replacements[&TaskType::Commit2], expected);
    let played = &chosen.replacements[&TaskType::PreCommit1];
    assert_eq!(played.program, Path::new("/opt/sealyard"));
    assert_eq!(played.arguments, ["exec", "--rehearsal-speed", "1000"]);
    assert_eq!(chosen.rehearsal, Some(Rehearsal { capacity: 2 << 40 }));
    assert!(!chosen.need_parameters());
}

#[test]
fn what_is_not_understood_is_said_with_what_would_be_right() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let not_to_be_run = format!("pc2={}", file.path().display());
    for (given, words) in [
        ("pc2", "TASK=rehearsal"),
        ("pc3=rehearsal", "pc1, pc2"),
        ("pc2=/nonexistent/program", "proofs/EXECUTORS.md"),
        (&not_to_be_run, "no program that may be run"),
        ("pc2=/tmp", "no program that may be run"),
    ] {
        let told = choose(&args(&[given])).unwrap_err();
        assert!(told.contains(words), "{given}: {told}");
    }
    let told = choose(&args(&["pc2=/bin/sh", "pc2=rehearsal"])).unwrap_err();
    assert!(told.contains("PC2 twice"), "{told}");
    let told = choose(&ExecutorArgs { rehearsal_speed: Some(2.0), ..args(&["pc2=/bin/sh"]) }).unwrap_err();
    assert!(told.contains("--rehearsal-speed is for rehearsals"), "{told}");
}

#[test]
fn a_machine_and_a_profile_are_read() {
    let text = ["memory=512GiB", "cpus=64", "gpus=2", "disk=20TiB"].map(str::to_owned).to_vec();
    let machine = ExecutorArgs { rehearsal_machine: text, ..args(&[]) }.machine().unwrap();
    let mut resources = worker::resources::detect(worker::resources::Swap::Counted).unwrap();
    machine.over(&mut resources);
    assert_eq!((resources.mem_physical, resources.cpus, resources.gpus.len()), (512 << 30, 64, 2));
    for bad in ["memory", "cpus=many", "gpus=65", "heart=1"] {
        let args = ExecutorArgs { rehearsal_machine: vec![bad.into()], ..args(&[]) };
        assert!(args.machine().is_err(), "{bad}");
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[32GiB]\npc1 = \"3h30m\"\n").unwrap();
    let profile = Profile::read(file.path()).unwrap();
    let pc1 = |size| profile.of(size, TaskType::PreCommit1);
    assert_eq!(pc1(SectorSize::GiB32), Some(Duration::from_secs(12_600)));
    assert_eq!(pc1(SectorSize::GiB64), None);
    for bad in
        ["[33GiB]\n", "[32GiB]\npc9 = \"1h\"\n", "[32GiB]\npc1 = 7\n", "[32GiB]\npc1 = \"soon\"\n", "["]
    {
        std::fs::write(file.path(), bad).unwrap();
        assert!(Profile::read(file.path()).is_err(), "{bad}");
    }
}
