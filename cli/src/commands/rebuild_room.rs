//! Whether the running manager has room for lost sectors: said, and refused, before anything of them is begun.

use std::time::Duration;

use rpc::pipelining::{RoomView, RoomWish};
use sealtasks::SectorSize;

use super::repair_alone;
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::talk;

/// Between two looks at paths that may yet come back.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Says what is needed, and refuses where it is not there. Waits for paths of which the manager does not know yet whether they
/// come back.
pub async fn check_room(connection: &Connection, wish: RoomWish, size: SectorSize) -> Outcome {
    let mut waits = false;
    loop {
        let room = connection.pipeline.rebuild_room(wish.clone()).await.map_err(rpc_failure)?;
        let RoomView { sectors, at_once, sealing_bytes, storing_bytes, sealing, storing, awaited } = room;
        if sectors == 0 {
            // They are under way, or nothing of them is lost.
            return Ok(());
        }
        let (to_seal, to_store) = (repair_alone::size(sealing_bytes), repair_alone::size(storing_bytes));
        if (sealing, storing) == (at_once, sectors) {
            talk!(
                "space needed: {to_seal} in paths for sealing ({at_once} sectors of {size} at once), {to_store} in paths for storing"
            );
            return Ok(());
        }
        let text = format!(
            "{to_seal} are needed in paths for sealing ({at_once} sectors of {size} at once), which have room for {sealing} of them, \
             and {to_store} in paths for storing, which have room for {storing} of {sectors} sectors"
        );
        if awaited.is_empty() {
            return Err(Failure::new(Code::Storage, text).advise(
                "attach a path or make room, `sealyard storage list` shows them; lower --parallel, or name fewer sectors",
            ));
        }
        if !std::mem::replace(&mut waits, true) {
            talk!("waits: {text}; {awaited}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
