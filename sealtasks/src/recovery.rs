//! What becomes of an attempt after a crash, whatever crashed and whenever: the table that manager, worker and executors
//! keep to. Never: does any of it.
//!
//! A crash is a process's end without warning (`kill -9`), or its machine's. Each row is a state of an attempt, in the
//! order in which an attempt goes through them. Its crash points are places in the code within that state; a test kills the
//! process at each of them (`tests/crash_points.rs`), and the sector gets where it would have got. A second table is of sectors'
//! files on their way, whether an attempt moves them or an operator: `tests/crash_files.rs` kills the process at each of its points,
//! and `tests/power_cut_moves.rs` cuts the power at those of the rows "arriving", "owed" and "leaving". A third is of messages to
//! the chain (`tests/sent_once.rs`).

/// One state of an attempt, or of a file on its way, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The state.
    pub state: &'static str,
    /// How it is recognised: the durable state's rows, the worker's journal.
    pub durable: &'static str,
    /// After a crash of the manager.
    pub manager: &'static str,
    /// After a crash of the worker alone; its executor runs on.
    pub worker: &'static str,
    /// After a crash of the executor alone.
    pub executor: &'static str,
    /// After a crash of the worker's machine.
    pub machine: &'static str,
    /// Places in the code within this state. The first word is the process.
    pub points: &'static [&'static str],
}

/// The table of attempts.
pub const RECOVERY: [Recovery; 10] = [
    Recovery {
        state: "waiting",
        durable: "a task row, no open attempt",
        manager: "submitted to the scheduler again, with its age",
        worker: "nothing is lost",
        executor: "there is none",
        machine: "nothing is lost",
        points: &["manager.before.task_submitted", "manager.after.task_submitted"],
    },
    Recovery {
        state: "dispatching",
        durable: "an open attempt without a call",
        manager: "a Sealyard worker is called again when it registers: for the same attempt it is the same call; a Lotus \
                  worker's return is taken by sector and method, and its registration proves that there is none",
        worker: "the call is repeated until its next life answers; not journalled, it is a new call, else the same",
        executor: "there is none",
        machine: "as the worker's; after `ForgetLostAfter` the task is queued anew",
        points: &["manager.before.attempt_bound", "manager.after.attempt_bound", "worker.accepted"],
    },
    Recovery {
        state: "acquiring",
        durable: "a held call; the journal says `accepted`",
        manager: "adopted when the worker registers with it; its locks and resources are charged again",
        worker: "returned with code 101; the task is queued anew, and what came of the files is not fetched twice",
        executor: "there is none",
        machine: "as the worker's",
        points: &["manager.before.call_accepted", "manager.after.call_accepted", "worker.acquired"],
    },
    Recovery {
        state: "starting",
        durable: "the journal says `running` without a process",
        manager: "as acquiring",
        worker: "the executor is found by its call's directory and taken over; when there is none, as acquiring; one that was \
                 ordered and had not come there yet ends without having begun, and one that has not got the call's name yet \
                 is killed",
        executor: "as running; one that was ordered and had not answered yet is replaced by a new process",
        machine: "as acquiring; what the executor had begun is removed",
        points: &[
            "worker.starting",
            "worker.ordered",
            "executor.ordered",
            "executor.named",
            "worker.started",
        ],
    },
    Recovery {
        state: "running",
        durable: "the journal names the process by id, start time and boot",
        manager: "as acquiring; nothing is asked of the executor",
        worker: "taken over under the same session; one that reads its piece from the worker is ended, its call returned \
                 with code 101",
        executor: "its call fails with class `compute` and the end of its log; what it had begun is removed",
        machine: "no such process in this boot and no report: returned with code 101, what it had begun is removed",
        points: &["worker.running", "executor.begun", "executor.worked"],
    },
    Recovery {
        state: "ended",
        durable: "a report in the call's directory",
        manager: "as running",
        worker: "its next life reads the report, declares what was made and returns it",
        executor: "nothing: its work is done",
        machine: "as the worker's: what a report speaks of was on stable storage before it was written",
        points: &["executor.reported", "worker.ended"],
    },
    Recovery {
        state: "declared",
        durable: "the index has the new files",
        manager: "the worker declares all its files to the manager's next life",
        worker: "as ended: declared once more, which changes nothing",
        executor: "there is none",
        machine: "as the worker's",
        points: &["worker.declared"],
    },
    Recovery {
        state: "returning",
        durable: "the journal holds the result",
        manager: "the worker offers it until the next life takes it, also before that asks for anything",
        worker: "offered again by its next life",
        executor: "there is none",
        machine: "as the worker's; after `ForgetLostAfter` the task is queued anew and the result not taken",
        points: &["worker.journalled", "manager.before.call_returned"],
    },
    Recovery {
        state: "taken",
        durable: "the call is returned and the attempt ended, in one commit",
        manager: "the worker was not answered, offers it again, and gets the same acknowledgement",
        worker: "offered again by its next life; the manager knows it and acknowledges it",
        executor: "there is none",
        machine: "as the worker's",
        points: &["manager.after.call_returned", "manager.after.attempt_ended", "worker.acknowledged"],
    },
    Recovery {
        state: "over",
        durable: "the task is ended and the sector has stepped, in one commit; the journal says `acknowledged`",
        manager: "the sector's record says what comes next, and that is begun",
        worker: "nothing; a repeated start is the same call",
        executor: "there is none",
        machine: "nothing",
        points: &[
            "manager.before.sector_stepped",
            "manager.after.sector_stepped",
            "manager.after.task_ended",
        ],
    },
];

/// The table of files on their way.
pub const FILES: [Recovery; 6] = [
    Recovery {
        state: "held",
        durable: "a `hold` row: an operator moves the sector",
        manager: "the move is finished by its next life, and then the sector goes on",
        worker: "the operator is told that the move failed, and the sector goes on",
        executor: "there is none",
        machine: "as the manager's and the worker's",
        points: &["manager.after.sector_held", "manager.before.sector_let_go"],
    },
    Recovery {
        state: "arriving",
        durable: "`fetching/<sector>.part`: a plan, the blocks that are here, at last a note that all of it is",
        manager: "the worker goes on fetching",
        worker: "the next fetch goes on where it was; what was whole and undeclared counts if its source says so",
        executor: "there is none",
        machine: "as the worker's; blocks that were noted after the last sync are compared with their hashes first",
        points: &["worker.fetch.synced", "worker.fetch.noted", "worker.fetch.arrived", "worker.fetch.placed"],
    },
    Recovery {
        state: "owed",
        durable: "the new copy is declared, and noted beside it that its source is to be deleted",
        manager: "the worker goes on",
        worker: "asked of the source by the next wish for the file, and now and then",
        executor: "there is none",
        machine: "as the worker's",
        points: &["worker.fetch.owed", "worker.fetch.settled"],
    },
    Recovery {
        state: "leaving",
        durable: "the source of a move is in no index, or lies under a name of its own until it is known to be what was moved",
        manager: "the worker goes on",
        worker: "put back and declared by its next life, and its deletion is asked for again",
        executor: "there is none",
        machine: "as the worker's",
        points: &["worker.leave.dropped", "worker.leave.doubted"],
    },
    Recovery {
        state: "moving",
        durable: "from one path of a worker to another: the index has both, the file lies in one",
        manager: "the worker goes on, and declares what it has to the manager's next life",
        worker: "its next life declares where the file lies; the call is returned with code 101 and repeated",
        executor: "there is none",
        machine: "as the worker's",
        points: &["worker.move.declared", "worker.move.renamed"],
    },
    Recovery {
        state: "deleted",
        durable: "the index has it no more, after another copy was found whole or by a permit that is committed",
        manager: "what a permit is for is deleted by the next clean-up",
        worker: "what lies in its place is declared by its next life and its deletion repeated; what has another name is deleted",
        executor: "there is none",
        machine: "as the worker's",
        points: &["manager.after.delete_permitted", "worker.delete.dropped", "worker.delete.aside"],
    },
];

/// The table of messages to the chain.
pub const MESSAGES: [Recovery; 2] = [
    Recovery {
        state: "intended",
        durable: "a record in the outbox without a CID",
        manager: "its next life looks for the message among those that wait and on chain; sent again is what is nowhere after so \
                  long that nobody can be at work on it still, and wanted as it is",
        worker: "nothing: it has no part in it",
        executor: "there is none",
        machine: "as the manager's",
        points: &["manager.message.intended", "manager.message.answered"],
    },
    Recovery {
        state: "sent",
        durable: "a record in the outbox with the message's CID",
        manager: "its next life waits for the message's end",
        worker: "nothing: it has no part in it",
        executor: "there is none",
        machine: "as the manager's",
        points: &["manager.message.recorded"],
    },
];

/// Every crash point of attempts, in the table's order.
pub fn crash_points() -> impl Iterator<Item = &'static str> {
    RECOVERY.iter().flat_map(|row| row.points.iter().copied())
}

/// Every crash point of files on their way, in the table's order.
pub fn file_points() -> impl Iterator<Item = &'static str> {
    FILES.iter().flat_map(|row| row.points.iter().copied())
}

/// Every crash point of messages, in the table's order; each is met in messages of both kinds.
pub fn message_points() -> impl Iterator<Item = &'static str> {
    MESSAGES.iter().flat_map(|row| row.points.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_has_a_continuation_after_every_crash_and_a_point_of_its_own() {
        for row in RECOVERY.into_iter().chain(FILES).chain(MESSAGES) {
            let said = [row.state, row.durable, row.manager, row.worker, row.executor, row.machine];
            assert!(said.iter().all(|text| !text.is_empty()) && !row.points.is_empty(), "{row:?}");
        }
        let points: Vec<_> = crash_points().chain(file_points()).chain(message_points()).collect();
        assert_eq!(points.iter().collect::<BTreeSet<_>>().len(), points.len(), "named once");
        let processes: BTreeSet<_> = points.iter().filter_map(|point| point.split('.').next()).collect();
        assert_eq!(processes, BTreeSet::from(["executor", "manager", "worker"]));
    }
}
