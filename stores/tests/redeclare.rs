//! The diff that is shown before a path is declared again.

mod support;

use std::fs;

use sealtasks::{FileType, FileTypes, SectorDecl};
use stores::RedeclareDiff;
use support::{World, both, id, sector, write_file};

fn sealed(number: u64) -> SectorDecl {
    SectorDecl { sector: sector(number).id, types: FileTypes::SEALED }
}

#[tokio::test]
async fn the_diff_tells_what_would_change_and_changes_nothing() {
    let world = World::new();
    let node = world.node().await;
    let dir = node.path("a", both()).await;
    node.path("b", both()).await;
    node.put("a", sector(1), FileType::Sealed).await;
    let gone = node.put("a", sector(2), FileType::Sealed).await;
    fs::remove_file(gone).expect("removed by hand");
    write_file(&dir, sector(3), FileType::Sealed);
    fs::write(dir.join("sealed/notes.txt"), "mine").expect("written");

    let diffs = node.local.redeclare_diff(Some(&id("a"))).await.expect("a diff");
    let expected = RedeclareDiff {
        declared: vec![sealed(3)],
        dropped: vec![sealed(2)],
        unchanged: 1,
        primary: true,
        foreign: vec![dir.join("sealed/notes.txt")],
        partial: Vec::new(),
    };
    assert_eq!(diffs, [(id("a"), expected)]);
    assert_eq!(world.holders(sector(2), FileType::Sealed).await, ["a*"], "nothing was dropped");
    assert!(world.holders(sector(3), FileType::Sealed).await.is_empty(), "nothing was declared");

    node.local.redeclare(None, true).await.expect("declared");
    let diffs = node.local.redeclare_diff(None).await.expect("diffs of both paths");
    assert_eq!(
        diffs.iter().map(|(id, diff)| (id.as_str(), diff.is_empty())).collect::<Vec<_>>(),
        [("a", true), ("b", true)]
    );
    assert_eq!(node.local.redeclare_diff(Some(&id("c"))).await.expect_err("not open").code(), "STO006");
}

/// A file of which the disk does not say whether it is there (a link that leads in a circle here, an error of a failing
/// disk elsewhere) is not taken for gone.
#[tokio::test]
async fn what_the_disk_cannot_tell_of_is_not_dropped() {
    let world = World::new();
    let node = world.node().await;
    node.path("a", both()).await;
    let kept = node.put("a", sector(1), FileType::Sealed).await;
    let gone = node.put("a", sector(2), FileType::Sealed).await;
    fs::remove_file(&gone).expect("removed by hand");
    fs::remove_file(&kept).expect("removed by hand");
    std::os::unix::fs::symlink(&kept, &kept).expect("a link to itself");
    kept.try_exists().expect_err("the disk does not say");

    let diffs = node.local.redeclare_diff(Some(&id("a"))).await.expect("a diff");
    assert_eq!(diffs[0].1.dropped, [sealed(2)], "the diff tells what would be done");
    node.local.redeclare(None, true).await.expect("declared");
    assert_eq!(world.holders(sector(1), FileType::Sealed).await, ["a*"]);
    assert!(world.holders(sector(2), FileType::Sealed).await.is_empty());
}
