//! One storage path whose mount hangs, beside others that answer.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sealtasks::{FileType, FileTypes, PathOrder, PathReport};
use stores::Index;
use support::{ADMIN, World, ask, content, id, sector, storing};
use tokio::time::timeout;

const SEALED: FileType = FileType::Sealed;
/// What does not hang takes no longer.
const PATIENCE: Duration = Duration::from_secs(25);

/// A file system that answers nothing, as a network mount whose server has died; it ends with this value.
struct Dead {
    at: PathBuf,
    device: Option<File>,
}

impl Dead {
    /// `None` where this user may not mount; that is said.
    fn mount(at: &Path) -> Option<Self> {
        let mounted = File::options().read(true).write(true).open("/dev/fuse").ok().and_then(|device| {
            let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
            let mut command = Command::new("mount");
            command.args(["-i", "-t", "fuse", "-o", options, "dead"]).arg(at);
            command.stdin(Stdio::from(device.try_clone().ok()?));
            command.output().is_ok_and(|output| output.status.success()).then_some(device)
        });
        if mounted.is_none() {
            #[expect(clippy::print_stderr, reason = "a test that leaves something out says so")]
            {
                eprintln!("LEFT OUT: this user may not mount a file system that hangs");
            }
        }
        mounted.map(|device| Self { at: at.to_owned(), device: Some(device) })
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // Whoever waits for it is told that it is gone.
        drop(self.device.take());
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

async fn etag(url: &str) -> String {
    let list = ask("GET", url, &[ADMIN, ("x-sealyard-blocks", "1")]).await;
    let text = String::from_utf8(list.2.to_vec()).expect("JSON");
    text.split("\"etag\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("an etag").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_hangs_holds_up_nothing_in_the_others() {
    let world = World::new();
    let (node, other) = (world.node().await, world.node().await);
    // The one that hangs is the first in every list.
    let first = node.path("a", storing()).await;
    let dir = node.path("b", storing()).await;
    let goal = node.path("c", storing()).await;
    other.path("x", storing()).await;
    for number in 1..=4 {
        node.put("b", sector(number), SEALED).await;
        other.put("x", sector(number), SEALED).await;
    }
    let url = |number: u64| format!("{}/sealed/s-t01000-{number}", node.base);
    let (listed, unlisted) = (etag(&url(1)).await, etag(&url(2)).await);
    let Some(_dead) = Dead::mount(&first.join("sealed")) else { return };

    let delete = async |number: u64, etag: &str| {
        let (address, headers) = (url(number), [ADMIN, ("x-sealyard-exactly", etag)]);
        let asked = ask("DELETE", &address, &headers);
        timeout(PATIENCE, asked).await.expect("it does not hang").0.as_u16()
    };
    // More often than a process has threads for it, somebody asks for what is nowhere, and gives up.
    for _ in 0..600 {
        let nowhere = "0".repeat(64);
        let address = url(7);
        let headers = [ADMIN, ("x-sealyard-exactly", &*nowhere)];
        let asked = timeout(Duration::from_millis(20), ask("DELETE", &address, &headers)).await;
        assert!(asked.is_err() || asked.is_ok_and(|answer| answer.0.as_u16() == 500));
    }
    let got = timeout(PATIENCE, ask("GET", &url(3), &[ADMIN])).await.expect("it does not hang");
    assert_eq!(got.2, content(sector(3), SEALED));
    assert_eq!(delete(1, &listed).await, 200);
    world.index.drop_files(&id("b"), sector(2).id, FileTypes::SEALED).await.expect("dropped");
    assert_eq!(delete(2, &unlisted).await, 200, "wherever it lies");
    assert!(!dir.join("sealed/s-t01000-1").exists() && !dir.join("sealed/s-t01000-2").exists());
    // What is looked for in vain may lie where nobody can look.
    assert_eq!(delete(2, &unlisted).await, 500);
    timeout(PATIENCE, node.remote.remove_copies(sector(3).id, FileTypes::SEALED))
        .await
        .expect("no")
        .expect("done");
    let (sector, types) = (sector(4), FileTypes::SEALED);
    let order = PathOrder::Move { sector, types, to: id("c") };
    let moved = timeout(PATIENCE, node.remote.carry_out(order)).await.expect("it does not hang");
    assert_eq!(moved.expect("moved"), PathReport::Moved);
    assert_eq!(fs::read(goal.join("sealed/s-t01000-4")).expect("there"), content(sector, SEALED));
}
