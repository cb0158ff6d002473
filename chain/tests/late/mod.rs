//! Messages of which it is found out late that they were sent.

use chain::sending::{Courier, Nowhere, Outbox as _, Outcome, Sending, Sight, Stage};
use sealtasks::ChainEpoch;

use super::standin::{AfterPush, StandInNode, World};
use super::{Desk, drafted};

/// Found on chain long after it was sent, it is as old as it is: where the node forgets how it ended, it is not forgotten here.
#[tokio::test]
async fn a_message_that_is_found_on_chain_late_is_looked_for_where_it_lies() {
    let Desk { node, lotus, outbox, _directory } = Desk::new(World::new()).await;
    let courier = Courier::new(&lotus, &outbox, Sending::On);
    let draft = drafted(&lotus, &[1]).await;
    node.world().after_push = AfterPush::Error(-32603, "upstream timed out".to_owned());
    node.world().held_back = Some(Vec::new());
    let unknown = courier.submit(draft).await.expect_err("nobody knows");
    assert_eq!(unknown.code(), "SND06", "{unknown}");
    {
        let mut world = node.world();
        world.let_in();
        world.mine();
        // It lies further back now than a message is looked for that was sent again.
        world.mine_at(3000, Vec::new());
    }
    let [intended] = &outbox.all().expect("readable")[..] else { panic!("one is kept") };
    let head = ChainEpoch::new(3000);
    let found = courier.look_for(intended.clone(), Nowhere::Send, Sight::Everywhere, head).await;
    let found = found.expect("looked for").expect("it is kept");
    assert!(matches!(found.stage, Stage::Pushed { seen: None, .. }), "{found:?}");
    {
        let mut world = node.world();
        world.tells_ends = false;
        world.mine_at(4000, Vec::new());
    }
    let settling = courier.settle(&found);
    let looks = async {
        let walks = |node: &StandInNode| {
            let calls = &node.world().calls;
            calls.iter().filter(|call| *call == "Filecoin.StateListMessages").count()
        };
        let goal = walks(&node) + 2;
        while walks(&node) < goal {
            tokio::task::yield_now().await;
        }
        node.world().tells_ends = true;
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = settling => outcome.expect("it landed"),
        () = looks => unreachable!("it waits for ever"),
    };
    assert!(matches!(outcome, Outcome::Done { height, .. } if height.get() == 3000), "{outcome:?}");
    assert_eq!(node.world().pushed.len(), 1);
}
