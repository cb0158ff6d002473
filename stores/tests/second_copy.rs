//! Several copies of an unsealed file in the paths of one process.

mod support;

use std::fs;

use pieces::{PieceData, add_piece};
use sealtasks::UnpaddedPieceSize;
use support::{SIZE, World, both, id, sector};

#[tokio::test]
async fn a_piece_is_looked_for_in_every_copy_here() {
    for damaged in [false, true] {
        let world = World::new();
        let node = world.node().await;
        for name in ["a", "b"] {
            let dir = node.path(name, both()).await;
            let file = dir.join("unsealed").join(sector(1).id.to_string());
            let (pieces, bytes): (u64, _) =
                if name == "a" { (508, vec![1; 508]) } else { (1016, vec![2; 1016]) };
            let size = UnpaddedPieceSize::try_from(pieces).expect("a piece");
            add_piece(&file, SIZE, &[], size, PieceData::Stream(&mut &bytes[..])).expect("written");
            if damaged && name == "a" {
                fs::write(&file, "no unsealed file").expect("damaged");
            }
            node.local.redeclare(Some(&id(name)), false).await.expect("declared");
        }
        let found = node.remote.unsealed_piece(sector(1), 0..1016).await.expect("an answer");
        assert!(found.is_some_and(|piece| !piece.is_remote()), "the second copy has it; damaged: {damaged}");
        let missing = node.remote.unsealed_piece(sector(1), 0..1500).await;
        if damaged {
            missing.expect_err("it may have been in the damaged one");
        } else {
            assert!(missing.expect("all were looked at").is_none());
        }
    }
}
