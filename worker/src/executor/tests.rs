use std::os::unix::fs::MetadataExt as _;

use std::os::unix::process::ExitStatusExt as _;

use sealtasks::{FileType, PreCommit1Input, RegisteredSealProof, SectorFiles, SectorId, SectorRef, Ticket};

use super::*;

/// Starts a shell that does `script`, for a sector of `proof` with its files in `dir`.
async fn shell(dir: &Path, proof: i64, script: &str) -> Executor {
    let options = ExecutorOptions {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: crate::environment::filtered(std::env::vars_os()),
        replacements: BTreeMap::new(),
        rehearsal: None,
        confiner: Confiner::default(),
        task_environment: BTreeMap::new(),
        spare: false,
    };
    let proof = RegisteredSealProof::try_from(proof).unwrap();
    let request = ExecutorRequest {
        version: ExecutorRequest::VERSION,
        sector: SectorRef { id: SectorId::new(1000, 1), proof },
        work: TaskInput::PreCommit1(PreCommit1Input { ticket: Ticket([1; 32]), pieces: vec![] }),
        files: SectorFiles([(FileType::Sealed, dir.join("sealed"))].into()),
    };
    let (dir, task) = (dir.join("call"), TaskType::PreCommit1);
    let (call, task) = (Uuid::new_v4(), Some(task));
    let run = Run { call, dir, task, request, parameters: vec![], data: None, gpus: vec![], spares: None };
    options.spawn(run).await.unwrap()
}

#[tokio::test]
async fn a_chatty_executors_log_takes_no_more_than_its_bound_and_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script =
        "head -c 30000000 /dev/zero | tr '\\0' x; cat ../gate; echo; echo last words >&2; kill -9 $$";
    let executor = shell(dir.path(), 5, script).await;
    let stop = CancellationToken::new();
    let cut = async {
        let log = dir.path().join("call/log");
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let found = std::fs::metadata(&log).unwrap();
            if found.len() >= 30_000_000 && found.blocks() * 512 <= executor_log::DISK_MAX {
                break;
            }
        }
        let gate = dir.path().join("gate");
        tokio::task::spawn_blocking(move || std::fs::write(gate, "go")).await.unwrap().unwrap();
    };
    let patience = Duration::from_secs(60);
    let leaving = AtomicBool::new(false);
    let both = async { tokio::join!(executor.finish(&stop, &leaving), cut) };
    let (ended, ()) = tokio::time::timeout(patience, both).await.expect("the log was never cut");
    let failure = ended.unwrap_err();
    assert_eq!(failure.class, FailureClass::Compute);
    assert!(failure.message.ends_with("last words"), "{}", failure.message.len());
}

#[tokio::test]
async fn a_bus_error_is_a_lack_of_space_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let ended = shell(dir.path(), 5, "kill -7 $$").await.finish(&stop, &AtomicBool::new(false)).await;
    let failure = ended.unwrap_err();
    assert_eq!(failure.class, FailureClass::Environment, "{failure}");
    assert!(failure.message.contains("see the kernel's log"), "{failure}");
    // No disk has room for a sector of this size.
    let files = SectorFiles([(FileType::Sealed, dir.path().join("sealed"))].into());
    // How one ended that an earlier life of the worker started is not known.
    for status in [Some(ExitStatus::from_raw(7)), None] {
        let failure = killed(status, "ended".into(), &files, u64::MAX);
        assert_eq!(failure.class, FailureClass::Space);
        assert!(failure.message.ends_with("is full; free space there: ended"), "{failure}");
        let class = if status.is_some() { FailureClass::Environment } else { FailureClass::Compute };
        assert_eq!(killed(status, "ended".into(), &files, 0).class, class);
    }
}
