//! Attempts that nobody has any more because their worker ended: how often a task goes on after that. Never: counts a worker
//! that somebody stopped, or that fell silent; nothing shows that the task had a part in it.
//!
//! A task may be what ends its worker: memory that is not there takes executor and worker together, and the machine starts
//! the worker again. Requeued without an end it would throw hours of work away again and again.

use sealtasks::{AttemptId, FailureClass};

use super::{Driver, GivingUp};
use crate::state::AttemptOutcome;

/// So many attempts of a task may be lost with their workers; one more is a failure of the task. Once it has failed so, the
/// next one that is lost is a failure, too, until the pipeline's budget for such failures is used up.
const DISOWNED_MAX: u32 = 3;

impl Driver {
    /// Its worker says that it ended while it had the attempt, or came back without it. Tried again at once the first time,
    /// later after a wait that doubles.
    pub(super) fn disowned(&mut self, attempt: AttemptId, reason: &str) {
        let Some(open) = self.open_mut(attempt) else { return };
        if open.giving_up == Some(GivingUp::Abort) {
            return self.given_up(attempt, GivingUp::Abort);
        }
        let Some(task) = self.tasks.get_mut(&attempt.task) else { return };
        task.disowned = task.disowned.saturating_add(1);
        let (times, sector, beside) = (task.disowned, task.sector.id, task.is_errand());
        let failed = self
            .sectors
            .get(&sector)
            .map_or(0, |known| known.record.failures_in_a_row(FailureClass::Compute));
        if times > DISOWNED_MAX || (failed > 0 && !beside) {
            let reason = format!(
                "its worker ended while it had this task ({}): {reason}; see what ends that worker: the machine's memory and \
                 its kernel's log (out of memory), its power, its GPU driver",
                if times == 1 { "once more".to_owned() } else { format!("{times} times in a row") }
            );
            return self.task_failed_as(attempt, AttemptOutcome::Failed, FailureClass::Compute, &reason);
        }
        let wait_ms = times.checked_sub(2).map_or(0, |again| self.shared.timing.start_back_off.after(again));
        let not_before_ms = self.now_ms().saturating_add(wait_ms);
        self.requeue_as(attempt, AttemptOutcome::Disowned, not_before_ms, reason);
    }
}
