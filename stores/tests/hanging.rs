//! A mount that hangs: files in it can be asked for and never come, and the files of other paths come all the same. A pipe
//! that nobody writes to plays the file, for opening it hangs as opening one on a dead server does.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sealtasks::FileType;
use stores::{CopyKind, Index};
use support::{ADMIN, World, ask, both, id, sector};

/// More than one path's turns, and how many those are.
const REQUESTS: usize = 100;
const TURNS: usize = 64;
/// Nothing here takes longer on a slow machine, unless it waits for the pipe.
const LIMIT: Duration = Duration::from_secs(60);
/// When a requester has had enough.
const GONE_AFTER: Duration = Duration::from_millis(200);

fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("threads").count()
}

/// Lets whoever waits for the pipe go on, and all who come later.
fn let_go(pipe: &Path) -> fs::File {
    fs::File::options().read(true).write(true).open(pipe).expect("opened for both")
}

/// Lets all go when the test ends, however: the runtime waits for its threads.
struct LetsGo<'a>(&'a Path);

impl Drop for LetsGo<'_> {
    fn drop(&mut self) {
        std::mem::forget(let_go(self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_hang_on_one_path_keep_no_other_path_from_answering() {
    let world = World::new();
    let node = world.node().await;
    let (dead, living) = (node.path("dead", both()).await, node.path("living", both()).await);
    let pipe = dead.join("sealed/s-t01000-1");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let _lets_go = LetsGo(&pipe);
    fs::write(living.join("sealed/s-t01000-2"), [7; 2048]).expect("written");
    for (path, number) in [("dead", 1), ("living", 2)] {
        let (path, of) = (id(path), sector(number).id);
        world.index.declare(&path, of, FileType::Sealed.into(), CopyKind::Primary).await.expect("declared");
    }
    // Those that go leave their threads behind, and with them their turns: others wait then, and cost none.
    for _ in 0..2 {
        let leaving: Vec<_> = (0..REQUESTS)
            .map(|_| {
                let url = format!("{}/sealed/s-t01000-1", node.base);
                let asked = async move { ask("GET", &url, &[ADMIN]).await.0 };
                tokio::spawn(tokio::time::timeout(GONE_AFTER, asked))
            })
            .collect();
        for asked in leaving {
            assert!(asked.await.expect("no panic").is_err(), "it goes without an answer");
        }
    }
    assert!(threads() < 2 * TURNS, "{} threads", threads());
    let hanging: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let url = format!("{}/sealed/s-t01000-1", node.base);
            tokio::spawn(async move { ask("GET", &url, &[ADMIN]).await.0 })
        })
        .collect();
    let begun = Instant::now();
    // Those that wait at the pipe have a thread each.
    while threads() <= TURNS && begun.elapsed() < LIMIT {
        tokio::task::yield_now().await;
    }
    let url = format!("{}/sealed/s-t01000-2", node.base);
    let answered = tokio::time::timeout(LIMIT, ask("GET", &url, &[ADMIN])).await;
    let stuck = hanging.iter().filter(|asked| !asked.is_finished()).count();
    let _open = let_go(&pipe);
    let (status, _, body) = answered.expect("the other path answers");
    assert_eq!((status.as_u16(), body.len()), (200, 2048));
    assert_eq!(stuck, REQUESTS, "those hang meanwhile");
    for asked in hanging {
        assert_eq!(asked.await.expect("no panic").as_u16(), 200, "and come when it answers again");
    }
}
