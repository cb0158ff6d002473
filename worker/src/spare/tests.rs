use super::*;

#[test]
fn a_spare_is_used_only_where_all_that_differs_is_read_later() {
    let of = |pairs: &[(&str, &str)]| -> Environment {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    };
    let spare = of(&[("PATH", "/bin"), ("SEALYARD_CALL", "nobody"), ("FIL_PROOFS_VERIFY_CACHE", "1")]);
    let fits = |pairs: &[(&str, &str)]| read_late(&spare, &of(pairs));
    assert!(fits(&[("PATH", "/bin"), ("SEALYARD_CALL", "x"), ("FIL_PROOFS_PARAMETER_CACHE", "/p")]));
    assert!(fits(&[("PATH", "/bin"), ("RAYON_NUM_THREADS", "2"), ("BELLMAN_NO_GPU", "1")]));
    for other in [
        &[("PATH", "/usr/bin")][..],
        &[],
        &[("PATH", "/bin"), ("LD_LIBRARY_PATH", "/opt")],
        &[("PATH", "/bin"), ("CUDA_VISIBLE_DEVICES", "0")],
        &[("PATH", "/bin"), ("MALLOC_ARENA_MAX", "1")],
    ] {
        assert!(!fits(other), "{other:?}");
    }
}

#[test]
fn small_sectors_are_given_spares_and_the_networks_own_are_not() {
    use SectorSize::{GiB32, GiB64, KiB2, MiB8, MiB512};
    for size in [KiB2, MiB8, MiB512, GiB32, GiB64] {
        let is_small = size < GiB32;
        assert_eq!(gains(TaskType::PreCommit2, size), is_small, "{size}");
        assert_eq!(gains(TaskType::Commit1, size), is_small, "{size}");
        assert_eq!(gains(TaskType::PreCommit1, size), is_small && size != KiB2, "{size}");
        assert!(!gains(TaskType::Commit2, size) && !gains(TaskType::AddPiece, size));
    }
}

/// A shell in the place of a spare that is ready; `is_apart` = it can be killed as one.
fn scripted(script: &str, is_apart: bool) -> Spare {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    if is_apart {
        set_apart(&mut command);
    }
    let mut child = command.spawn().unwrap();
    Spare {
        pid: child.id().unwrap(),
        orders: child.stdin.take(),
        answers: child.stdout.take().unwrap(),
        child,
        ready_by: None,
        program: Program::of(Path::new("/bin/sh")).unwrap(),
        used: Arc::default(),
        health: Health::default(),
        // The answer always comes, and who was killed ends.
        limits: Limits { answer: DEATH_MAX, death: DEATH_MAX },
    }
}

fn some_order() -> Order {
    order(Uuid::new_v4(), "pc2".to_owned(), Path::new("/calls/x"), &Environment::new()).unwrap()
}

/// A directory, and how a script makes a mark in it.
fn place_for_marks() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let mark = format!("> {}/mark", dir.path().display());
    (dir, mark)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEATH_MAX, wait).await.unwrap_or_else(|_| panic!("{what} takes too long"));
}

async fn marked(dir: &tempfile::TempDir) {
    let mark = dir.path().join("mark");
    until("a mark", || mark.exists()).await;
}

fn failures(health: &Health) -> (u32, String) {
    let state = health.state();
    (state.failures, state.why.clone())
}

const LATE: &str = "nothing was heard of it";

#[tokio::test]
async fn one_that_says_so_has_begun_and_runs_on() {
    let spare = scripted("cat > /dev/null; printf b; exec sleep 1000", true);
    let (pid, health) = (spare.pid, spare.health.clone());
    health.failed("an earlier one".to_owned());
    let mut child = spare.begin(&some_order()).await.expect("it has begun");
    assert_eq!(child.id(), Some(pid));
    assert!(process::start_time(pid).is_some(), "it runs");
    assert_eq!(failures(&health).0, 0, "earlier failures are over");
    process::kill_group(pid);
    child.wait().await.unwrap();
}

#[tokio::test]
async fn one_that_has_begun_unheard_is_not_begun_twice() {
    use std::os::unix::process::ExitStatusExt as _;
    let at_work = |mark| format!("printf b; : {mark}; exec sleep 1000");
    let over = |mark| format!("printf b; : {mark}; exit 7");
    let (dir, mark) = place_for_marks();
    let spare = scripted(&at_work(mark), true);
    marked(&dir).await;
    let mut child = spare.abandon(Err(LATE.to_owned())).await.expect("the call's executor");
    assert!(child.id().is_some(), "not waited for yet: its executor's end is the call's");
    assert_eq!(child.wait().await.unwrap().signal(), Some(9));

    let (dir, mark) = place_for_marks();
    let spare = scripted(&over(mark), true);
    marked(&dir).await;
    until("its end", || process::start_time(spare.pid).is_none()).await;
    let mut child =
        spare.abandon(Err(LATE.to_owned())).await.expect("the call's executor, whose report counts");
    assert_eq!(child.wait().await.unwrap().code(), Some(7), "it had ended before it was killed");
}

#[tokio::test]
async fn an_answer_that_the_runtime_has_not_heard_of_is_heard() {
    let (dir, mark) = place_for_marks();
    let spare = scripted(&format!("printf b; : {mark}; exec sleep 1000"), true);
    marked(&dir).await;
    assert_eq!(spare.unheard(), Some(BEGUN));
    assert_eq!(spare.unheard(), None, "once, and it is not waited for");
    process::kill_group(spare.pid);
}

#[tokio::test]
async fn one_that_has_begun_nothing_is_dead_when_another_may_begin() {
    for (script, why) in [
        ("exec sleep 1000", LATE),
        ("cat > /dev/null; printf 'fno such directory'; exit 1", "no such directory"),
        ("cat > /dev/null; printf x; exec sleep 1000", "it said 120"),
        ("exec cat > /dev/null", "its pipes"),
        ("exit 0", "its pipes"),
    ] {
        let spare = scripted(script, true);
        let (pid, health) = (spare.pid, spare.health.clone());
        let begun = if why == LATE {
            let mut spare = spare;
            spare.orders = None;
            spare.abandon(Err(LATE.to_owned())).await
        } else {
            spare.begin(&some_order()).await
        };
        assert!(begun.is_none(), "{script}");
        assert_eq!(process::start_time(pid), None, "{script}: it is dead");
        let (failed, told) = failures(&health);
        assert_eq!(failed, 1, "{script}");
        assert!(told.starts_with(why), "{script}: {told}");
    }
}

#[tokio::test]
async fn one_that_does_not_end_stays_its_calls_executor_until_it_does() {
    // It leads no group, so that the kill does not reach it; once with its pipe open, and once without.
    for script in ["exec sleep 1000", "exec sleep 1000 >&-"] {
        let mut spare = scripted(script, false);
        spare.limits.death = Duration::from_millis(20);
        let pid = spare.pid;
        let mut child = spare.abandon(Err(LATE.to_owned())).await.expect("it is there still");
        assert_eq!(child.id(), Some(pid));
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_blamed_for_one_that_dies_unused() {
    let spare = scripted("exit 0", true);
    let health = spare.health.clone();
    assert!(spare.abandon(Err("its pipe: early eof".to_owned())).await.is_none());
    assert_eq!(failures(&health).0, 0);
}

#[tokio::test]
async fn failures_make_a_pause_that_ends_and_is_told() {
    tokio::time::pause();
    let health = Health::default();
    for _ in 1..FAILURES_MAX {
        health.failed("no memory".to_owned());
        assert_eq!(health.told(), "0 ready of 2");
    }
    health.failed("no memory".to_owned());
    assert_eq!(health.told(), "0 ready of 2; 3 failed, none is started for 60 s: no memory");
    tokio::time::advance(PAUSE).await;
    assert_eq!(health.told(), "0 ready of 2");
    health.failed("no memory".to_owned());
    assert_eq!(health.told(), "0 ready of 2", "the next ones have all their chances");
}

#[tokio::test]
async fn a_call_with_other_variables_spends_no_spare() {
    let (keeper, mut asked) = mpsc::channel(1);
    let spares = Spares { keeper: Some(keeper), ..Spares::default() };
    spares.health.state().ready = 1;
    let mut begin = async |name: &str| {
        let environment: Environment = [(name.into(), "0".into())].into();
        // Nobody answers it here, which ends the wait at once where a spare is asked for.
        let order = some_order();
        let began = spares.begin(Path::new("/bin/sh"), &environment, &order);
        let answer = async { asked.recv().await.map(drop).is_some() };
        tokio::select! { biased; asked = answer => asked, began = began => { assert!(began.is_none()); false } }
    };
    assert!(!begin("CUDA_VISIBLE_DEVICES").await && !begin("LD_LIBRARY_PATH").await);
    assert!(begin("FIL_PROOFS_PARAMETER_CACHE").await, "the same with a variable that is read late");
}
