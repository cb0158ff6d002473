//! Executors in processes of their own, over the file seam: piece bytes on descriptor 3, and a real proof of one 2 KiB
//! sector, made and verified.
//!
//! The libraries read their parameter directory once per process, so the processes are this test program again, started
//! with the directory in their environment and `child_executor` as the only test.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proofs::params::{self, Choice};
use sealtasks::{
    AddPieceInput, Commit2Input, ExecutorReport, ExecutorRequest, FailureClass, PieceSource, Proof,
    SectorSize, TaskInput, TaskOutput, VerifyInput,
};

mod world;

use world::{Content, SEED, TICKET, World, noise, sector, unpadded};

const INPUT: &str = "EXECUTOR_TEST_INPUT";
const OUTPUT: &str = "EXECUTOR_TEST_OUTPUT";
const PIECE: &str = "EXECUTOR_TEST_PIECE";

/// No test by itself: the executor process of the others.
#[test]
fn child_executor() {
    let (Some(input), Some(output)) = (std::env::var_os(INPUT), std::env::var_os(OUTPUT)) else { return };
    let outcome = proofs::exec_files(Path::new(&input), Path::new(&output)).expect("the report is written");
    std::process::exit(outcome.exit_code().into());
}

fn in_child(world: &World, request: &ExecutorRequest, parameters: &Path) -> (i32, ExecutorReport) {
    in_child_with(world, request, parameters, ["exec", "3<&-"])
}

/// `redirected` stands before the program in a shell's line, `redirection` behind it.
fn in_child_with(
    world: &World,
    request: &ExecutorRequest,
    parameters: &Path,
    [redirected, redirection]: [&str; 2],
) -> (i32, ExecutorReport) {
    let (input, output) = (world.root().join("input.json"), world.root().join("output.json"));
    std::fs::write(&input, serde_json::to_vec(request).expect("JSON")).expect("written");
    // The shell only puts the piece bytes where the seam wants them.
    let status = Command::new("sh")
        .args(["-c", &format!("{redirected} \"$0\" --exact child_executor --nocapture {redirection}")])
        .arg(std::env::current_exe().expect("this program"))
        .env(PIECE, world.root().join("piece"))
        .env(INPUT, &input)
        .env(OUTPUT, &output)
        .env(params::SHARED_VARIABLE, parameters)
        .stdin(Stdio::null())
        .process_group(0)
        .status()
        .expect("the child runs");
    let report = std::fs::read(&output).expect("the report");
    std::fs::remove_file(&output).expect("removed");
    (status.code().expect("an exit code"), serde_json::from_slice(&report).expect("a report"))
}

#[test]
fn piece_bytes_come_on_descriptor_3_from_a_file_or_a_pipe() {
    let world = World::new(sector(1000, 41));
    let data = noise(2032, 9);
    std::fs::write(world.root().join("piece"), &data).expect("written");
    let expected = World::new(sector(1000, 41)).add_piece(&[], &Content::Bytes(data)).expect("a piece");
    let (size, source) = (unpadded(2032), PieceSource::Stream);
    let work = TaskInput::AddPiece(AddPieceInput { existing: vec![], size, source });
    let file = ["exec", "3< \"$EXECUTOR_TEST_PIECE\""];
    let pipe = ["cat \"$EXECUTOR_TEST_PIECE\" |", "3<&0"];
    for way in [file, pipe] {
        let (code, report) = in_child_with(&world, &world.request(work.clone()), world.root(), way);
        assert_eq!((code, report), (0, ExecutorReport::Done(TaskOutput::AddPiece(expected))), "{way:?}");
    }
}

#[test]
fn a_proof_is_made_and_verified_by_different_processes() {
    let choice = params::choose_directory(SectorSize::KiB2);
    let (Choice::Published(parameters) | Choice::Insecure(parameters)) = &choice else {
        #[expect(clippy::print_stderr, reason = "whoever reads the results must know what they do not cover")]
        {
            eprintln!("LEFT OUT: Commit2 and verification of a 2 KiB sector, because of {choice:?}");
            eprintln!("run `sealyard params fetch 2KiB` or `sealyard params generate` first");
        }
        return;
    };
    let world = World::new(sector(2_100_000, 42));
    let sealed = world.seal(&[Content::Bytes(noise(2032, 7))]);
    let c1 = world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
    let TaskOutput::Commit1(c1) = c1 else { panic!("C1 gave {c1:?}") };

    let (code, report) =
        in_child(&world, &world.request(TaskInput::Commit2(Commit2Input { c1 })), parameters);
    let ExecutorReport::Done(TaskOutput::Commit2(proof)) = report else {
        panic!("C2 gave {code}: {report:?}")
    };
    assert_eq!((code, proof.0.len()), (0, 192));

    let verify = |proof: Proof, seed| {
        let (sealed, unsealed) = (sealed.sealed, sealed.unsealed);
        let input = VerifyInput { ticket: TICKET, seed, sealed, unsealed, proof };
        in_child(&world, &world.request(TaskInput::Verify(input)), parameters)
    };
    let verdict = |valid| (0, ExecutorReport::Done(TaskOutput::Verify(valid)));
    assert_eq!(verify(proof.clone(), SEED), verdict(true));
    assert_eq!(verify(proof.clone(), sealtasks::Seed([0x23; 32])), verdict(false));
    let mut spoilt = proof.clone();
    spoilt.0[100] ^= 1;
    assert_eq!(verify(spoilt, SEED), verdict(false));
    assert_eq!(verify(Proof(proof.0[..100].to_vec()), SEED), verdict(false));
    assert_eq!(verify(Proof(vec![]), SEED), verdict(false));
}

#[test]
fn without_parameters_a_proof_fails_with_the_command_to_run() {
    let world = World::new(sector(1000, 43));
    let sealed = world.seal(&[Content::Zeros(2032)]);
    let c1 = world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
    let TaskOutput::Commit1(c1) = c1 else { panic!("C1 gave {c1:?}") };
    let verify = VerifyInput {
        ticket: TICKET,
        seed: SEED,
        sealed: sealed.sealed,
        unsealed: sealed.unsealed,
        proof: Proof(vec![0; 192]),
    };
    for work in [TaskInput::Commit2(Commit2Input { c1 }), TaskInput::Verify(verify)] {
        let (code, report) = in_child(&world, &world.request(work), world.root());
        let ExecutorReport::Failed(failure) = report else { panic!("{report:?}") };
        assert_eq!((code, failure.class), (1, FailureClass::Environment));
        assert!(failure.message.contains("sealyard params fetch 2KiB"), "{failure}");
    }
}
