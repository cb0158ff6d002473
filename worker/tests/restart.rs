//! What becomes of calls when a worker dies and starts again on the same repo. A death is a runtime that is shut down
//! in the middle of everything: none of the worker's own code runs any more, while its executors live on.

mod scripted;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rpc::api::Job;
use rpc::extension::CallPhase;
use rpc::{PieceData, WorkerApi as _};
use scripted::{
    PATIENCE, SECTOR, World, alive, appears, attempt, held, pc1, pc1_output, start_ok, until, with_data,
};
use sealtasks::{
    CallErrorCode, CallId, DataCidInput, FailureClass, FileType, FileTypes, PieceSource, SectorId, SectorRef,
    TaskInput, TransferChange, UnpaddedPieceSize, WorkerId,
};
use stores::{CopyKind, Index as _};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;
use worker::{RegistrationOptions, Status, StatusSink};

/// Looks until there is something to see. Processes have no other way to tell.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came about that {what}");
        std::thread::yield_now();
    }
}

/// Runs a life to its last line; then it ends as by a crash.
fn die_after<R>(life: impl Future<Output = R>) -> R {
    let runtime = Runtime::new().unwrap();
    let told = runtime.block_on(life);
    runtime.shutdown_background();
    told
}

/// A life in which PreCommit1 is begun and its executor waits at the gate; then the worker dies.
fn die_beside_an_executor(world: &World) -> (CallId, WorkerId) {
    world.mode("hang");
    die_after(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        (call, worker.id())
    })
}

/// Processes that no signal ends, as those are that hang in the kernel: frozen by a control group of version 1.
struct Frozen(PathBuf);

impl Frozen {
    /// `None`: here nothing can be frozen so.
    fn new() -> Option<Self> {
        let dir = PathBuf::from(format!("/sys/fs/cgroup/freezer/sealyard-test-{}", std::process::id()));
        let made = std::fs::create_dir(&dir).is_ok() && dir.join("freezer.state").exists();
        made.then_some(Self(dir))
    }

    fn take(&self, pids: &[&str]) {
        for pid in pids {
            std::fs::write(self.0.join("cgroup.procs"), pid.trim()).unwrap();
        }
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        let state = || std::fs::read_to_string(self.0.join("freezer.state")).unwrap();
        soon("they are frozen", || (state().trim() == "FROZEN").then_some(()));
    }

    fn thaw(&self) {
        std::fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        soon("the group is empty", || std::fs::remove_dir(&self.0).ok());
    }
}

/// Ends the executor at the gate as by a crash, with its helpers left behind.
fn kill_the_executor(world: &World) {
    let pid = world.told("pid");
    signal::kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    soon("the executor ends", || (!alive(&pid)).then_some(()));
}

fn listed(world: &World, kind: FileType) -> usize {
    let find = world.manager.index.find(SECTOR.id, kind.into(), None);
    Runtime::new().unwrap().block_on(find).unwrap().len()
}

#[test]
fn what_downloads_may_use_by_an_order_holds_in_the_next_life() {
    let (world, nothing) = (World::new(), TransferChange::default());
    let slow = TransferChange { bandwidth: Some(3 << 20), ..nothing };
    die_after(async { world.start().await.transfers(slow).await.unwrap() });
    let report = die_after(async { world.start().await.transfers(nothing).await.unwrap() });
    assert_eq!(report.limits.bandwidth, slow.bandwidth);
}

#[test]
fn an_executor_that_outlives_its_worker_is_taken_over_and_its_result_returned() {
    let world = World::new();
    let (call, session) = die_beside_an_executor(&world);
    let pid = world.told("pid");
    for life in 0..2 {
        // The first of them dies as well.
        die_after(async {
            let worker = world.start().await;
            assert_eq!(worker.id(), session, "to its manager the worker was never away");
            held(&worker, call, Some(CallPhase::Running)).await;
            assert!(alive(&pid), "life {life}");
            assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call, "the same call");
        });
        assert_eq!(listed(&world, FileType::Sealed), 0, "what is half-written is not declared");
    }
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        std::fs::write(world.evidence("gate"), "go").unwrap();
        let returned = world.returned(call).await;
        assert_eq!(returned.result, Ok(pc1_output()));
        assert_eq!(returned.attempt, Some(attempt(1)));
        assert!(returned.account.unwrap().started_ms > 0);
        held(&worker, call, None).await;
        worker.close().await;
    });
    assert_eq!((listed(&world, FileType::Sealed), listed(&world, FileType::Cache)), (1, 1));
    assert_eq!(world.told("runs"), "pc1\n", "it is not run again");
}

#[test]
fn an_executor_that_ended_while_its_worker_was_away_is_returned_as_it_ended() {
    let world = World::new();
    let (call, session) = die_beside_an_executor(&world);
    let pid = world.told("pid");
    std::fs::write(world.evidence("gate"), "go").unwrap();
    soon("the executor ends", || (!alive(&pid)).then_some(()));
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_eq!(worker.id(), session);
        assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
        held(&worker, call, None).await;
        worker.close().await;
    });
    assert_eq!(listed(&world, FileType::Sealed), 1);
    assert_eq!(world.told("runs"), "pc1\n", "it is not run again");
}

#[test]
fn a_call_whose_executor_died_too_is_returned_as_restarted_and_nothing_of_it_is_left() {
    let world = World::new();
    let (call, session) = die_beside_an_executor(&world);
    assert!(world.file(FileType::Sealed).exists());
    let helper = helper_of(&world);
    kill_the_executor(&world);
    assert!(alive(&helper), "what the executor started lives on");

    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_ne!(worker.id(), session, "it was away");
        let returned = world.returned(call).await;
        let error = returned.result.as_ref().unwrap_err();
        assert_eq!(error.code, CallErrorCode::TempWorkerRestart);
        assert_eq!(error.message, "worker [name: w1] restarted");
        assert_eq!(returned.attempt, Some(attempt(1)));
        assert_eq!(returned.account.unwrap().class, None, "nobody wanted it");
        assert!(!alive(&helper));
        assert!(!world.file(FileType::Sealed).exists() && !world.file(FileType::Cache).exists());
        assert!(world.file(FileType::Unsealed).exists(), "what was there before the call stays");
        held(&worker, call, None).await;
        assert_eq!(start_ok(&worker, pc1(Some(attempt(1)))).await, call, "the attempt is spent");
        worker.close().await;
    });
    assert_eq!(world.told("runs"), "pc1\n");
}

/// What a worker joins a manager with that takes no states; what it tells of that is kept.
fn joining(statuses: &Arc<Mutex<Vec<Status>>>) -> RegistrationOptions {
    let statuses = Arc::clone(statuses);
    let status: StatusSink = Arc::new(move |status| statuses.lock().unwrap().push(status));
    let address = "http://127.0.0.1:3456/rpc/v0".to_owned();
    RegistrationOptions { manager: "http://manager".into(), address, status }
}

/// A Lotus manager takes a known session for a repetition: it never thinks a busy worker to be idle.
#[test]
fn a_lotus_manager_gets_its_worker_back_at_once_when_an_executor_was_taken_over() {
    let mut world = World::new();
    Arc::get_mut(&mut world.manager).unwrap().lotus = true;
    world.mode("hang");
    let said = Arc::default();
    let (call, session) = die_after(async {
        let worker = world.start().await;
        worker.register(joining(&said)).await.unwrap();
        let call = start_ok(&worker, pc1(None)).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        (call, worker.id())
    });
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_eq!(worker.id(), session);
        worker.register(joining(&said)).await.unwrap();
        assert_eq!(world.manager.connects.borrow().len(), 2);
        assert_eq!(*said.lock().unwrap(), [Status::Registered, Status::Registered], "and never waited");
        // Another manager process knows nothing of what runs here.
        world.manager.restart();
        let waits = || said.lock().unwrap().contains(&Status::WaitingForCalls { calls: 1 });
        soon("it waits until it is idle", || waits().then_some(()));
        assert_eq!(world.manager.connects.borrow().len(), 2);
        std::fs::write(world.evidence("gate"), "go").unwrap();
        assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
        until(&world.manager.connects, |connects| (connects.len() == 3).then_some(())).await;
        worker.close().await;
    });
}

/// Ended to be started again: by an operator who updates it, say.
#[test]
fn a_worker_that_leaves_leaves_its_executors_to_its_next_life() {
    let world = World::new();
    world.mode("hang");
    let life = async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        assert_eq!(worker.leave().await, 1);
        (call, worker.id())
    };
    let (call, session) = Runtime::new().unwrap().block_on(life);
    assert!(alive(&world.told("pid")) && world.file(FileType::Sealed).exists());
    assert!(world.manager.returns.borrow().is_empty(), "nothing is given up");
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_eq!(worker.id(), session);
        held(&worker, call, Some(CallPhase::Running)).await;
        std::fs::write(world.evidence("gate"), "go").unwrap();
        let returned = world.returned(call).await;
        assert_eq!(returned.result, Ok(pc1_output()));
        let account = returned.account.unwrap();
        assert!(account.peak_bytes > 0, "seen while it ran: {account:?}");
        worker.close().await;
    });
    assert_eq!(world.told("runs"), "pc1\n", "it is not run again");
}

#[test]
fn a_worker_that_stops_at_once_gives_its_calls_back_before_it_ends() {
    let world = World::new();
    world.mode("hang");
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(Some(attempt(1)))).await;
        appears(&world.evidence("hangs")).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        assert_eq!(worker.stop_now().await, 0, "the manager has it all");
        let returned = world.returned(call).await;
        assert_eq!(returned.account.unwrap().class, Some(FailureClass::Aborted), "somebody wanted it so");
        let error = returned.result.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (CallErrorCode::TempWorkerRestart, "worker [name: w1] restarted")
        );
        assert!(!alive(&world.told("pid")));
        assert!(!world.file(FileType::Sealed).exists() && world.file(FileType::Unsealed).exists());
    });
}

/// The process at the gate, which the executor has started.
fn helper_of(world: &World) -> String {
    let evidence = world.evidence("").to_string_lossy().into_owned();
    let at_the_gate = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0);
        words.into_iter().any(|word| word.starts_with(evidence.as_bytes()) && word.ends_with(b"/gate"))
    };
    soon("somebody stands at the gate", || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).find(at_the_gate)
    })
}

#[test]
fn an_executor_that_was_taken_over_can_die_and_be_stopped_as_any_other() {
    for stopped in [false, true] {
        let world = World::new();
        let (call, _) = die_beside_an_executor(&world);
        let pid = world.told("pid");
        Runtime::new().unwrap().block_on(async {
            let worker = world.start().await;
            held(&worker, call, Some(CallPhase::Running)).await;
            let helper = helper_of(&world);
            if stopped {
                worker.abort(call).await.unwrap();
            } else {
                kill_the_executor(&world);
            }
            let returned = world.returned(call).await;
            let message = returned.result.unwrap_err().message;
            let (class, words) = match stopped {
                true => (FailureClass::Aborted, "task aborted"),
                false => (FailureClass::Compute, "the executor ended without a report (how is not known"),
            };
            assert!(message.starts_with(words), "{message}");
            assert_eq!(returned.account.unwrap().class, Some(class));
            assert!(!alive(&pid) && !alive(&helper) && !world.file(FileType::Sealed).exists());
            worker.close().await;
        });
    }
}

/// Nothing was heard of the worker for so long that its attempt was given up; the next one's files are made elsewhere.
#[test]
fn what_an_attempt_made_that_was_given_up_is_not_declared() {
    let world = World::new();
    let (call, _) = die_beside_an_executor(&world);
    world.manager.fences.store(true, Ordering::SeqCst);
    std::fs::write(world.evidence("gate"), "go").unwrap();
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        let returned = world.returned(call).await;
        assert!(returned.result.unwrap_err().message.starts_with("attempt 1.1 was given up while"));
        assert_eq!(returned.account.unwrap().class, Some(FailureClass::Aborted));
        worker.close().await;
    });
    assert_eq!(listed(&world, FileType::Sealed), 0);
    assert!(!world.file(FileType::Sealed).exists() && world.file(FileType::Unsealed).exists());
}

/// The bytes end where the worker died, and the executor cannot know.
#[test]
fn an_executor_that_hangs_in_the_kernel_keeps_its_call_held_and_nothing_else_from_going_on() {
    let mut world = World::new();
    let Some(frozen) = Frozen::new() else {
        #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
        {
            eprintln!("LEFT OUT: no process can be frozen here");
        }
        return;
    };
    Arc::get_mut(&mut world.manager).unwrap().lotus = true;
    let (call, session) = die_beside_an_executor(&world);
    let pid = world.told("pid");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pid.trim())).unwrap();
    let helper = children.trim().to_owned();
    // The executor is gone, and a helper of its is not: nobody will report, so the call is lost.
    frozen.take(&[&helper]);
    kill_the_executor(&world);
    world.periods.death = Duration::from_millis(50);
    // With a further start while nothing has changed.
    for _ in 0..2 {
        die_after(async {
            let worker = world.start().await;
            held(&worker, call, Some(CallPhase::Running)).await;
            assert_eq!(worker.id(), session, "to its manager the worker was never away");
            assert!(alive(&helper) && world.file(FileType::Sealed).exists(), "it may write still");
            let find = |kind: FileType| world.manager.index.find(SECTOR.id, kind.into(), None);
            assert!(find(FileType::Sealed).await.unwrap().is_empty(), "nor is it whole");
            assert_eq!(find(FileType::Unsealed).await.unwrap().len(), 1, "what is whole is found");
            let other = SectorRef { id: SectorId::new(1000, 8), ..SECTOR };
            let next = start_ok(&worker, Job { sector: other, ..pc1(None) }).await;
            // It has no data to seal, and says so.
            world.returned(next).await.result.unwrap_err();
            // Or the next life would offer it again.
            held(&worker, next, None).await;
        });
    }
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        held(&worker, call, Some(CallPhase::Running)).await;
        let calls = worker.current_state().await.calls;
        assert!(calls.len() == 1 && calls[0].lingering, "{calls:?}");
        // Nor does it keep the worker out of a manager that takes only idle ones.
        let said = Arc::default();
        tokio::time::timeout(PATIENCE, worker.register(joining(&said))).await.expect("it waits").unwrap();
        assert_eq!(*said.lock().unwrap(), [Status::Registered]);
        frozen.thaw();
        let error = world.returned(call).await.result.unwrap_err();
        assert_eq!(error.code, CallErrorCode::TempWorkerRestart, "{error}");
        assert!(
            !alive(&helper)
                && !world.file(FileType::Sealed).exists()
                && !world.file(FileType::Cache).exists()
        );
        worker.close().await;
    });
}

#[test]
fn an_executor_that_was_fed_by_its_worker_is_never_taken_over() {
    let world = World::new();
    let size = UnpaddedPieceSize::try_from(127).unwrap();
    let call = die_after(async {
        let worker = world.start().await;
        let work = TaskInput::DataCid(DataCidInput { size, source: PieceSource::Stream });
        let (mut bytes, piece) = tokio::io::duplex(64);
        bytes.write_all(b"a few").await.unwrap();
        let call = start_ok(&worker, with_data(work, PieceData::Stream(Box::pin(piece)))).await;
        held(&worker, call, Some(CallPhase::Running)).await;
        appears(&world.evidence("piece")).await;
        call
    });
    let pid = world.told("pid");
    soon("the executor ends", || (!alive(&pid)).then_some(()));
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        let error = world.returned(call).await.result.unwrap_err();
        assert_eq!(error.code, CallErrorCode::TempWorkerRestart, "{error}");
        worker.close().await;
    });
}

/// Another worker may have made the file since, in a later attempt, on a mount that both have.
#[test]
fn a_file_that_was_declared_since_outlives_the_call_that_is_given_up() {
    let world = World::new();
    let (call, _) = die_beside_an_executor(&world);
    kill_the_executor(&world);
    Runtime::new().unwrap().block_on(async {
        let path = world.manager.index.paths()[0].info.id.clone();
        let declared = world.manager.index.declare(&path, call.sector, FileTypes::SEALED, CopyKind::Primary);
        declared.await.unwrap();
        let worker = world.start().await;
        world.returned(call).await.result.unwrap_err();
        assert!(world.file(FileType::Sealed).exists() && !world.file(FileType::Cache).exists());
        worker.close().await;
    });
}

#[test]
fn a_finished_call_that_nobody_took_is_returned_as_it_ended() {
    let world = World::new();
    world.manager.returns_unreachable.store(true, Ordering::SeqCst);
    let call = die_after(async {
        let worker = world.start().await;
        let call = start_ok(&worker, pc1(None)).await;
        until(&world.manager.return_tries, |tries| (*tries > 1).then_some(())).await;
        call
    });
    world.manager.returns_unreachable.store(false, Ordering::SeqCst);
    Runtime::new().unwrap().block_on(async {
        let worker = world.start().await;
        assert_eq!(world.returned(call).await.result, Ok(pc1_output()));
        held(&worker, call, None).await;
        worker.close().await;
    });
    assert!(world.file(FileType::Sealed).exists());
    assert_eq!(world.told("runs"), "pc1\n", "it is not run again");
}

#[test]
fn a_session_is_new_at_a_start_with_nothing_to_take_over_and_the_repo_s_id_never() {
    let (world, other) = (World::new(), World::new());
    let life = |world: &World| {
        Runtime::new().unwrap().block_on(async {
            let worker = world.start().await;
            let state = worker.state().await.unwrap();
            worker.close().await;
            (state.session, state.repo.unwrap())
        })
    };
    let (first, second) = (life(&world), life(&world));
    assert_ne!(first.0, second.0);
    assert_eq!(first.1, second.1);
    assert_ne!(life(&other).1, first.1, "another repo is another worker");
}
