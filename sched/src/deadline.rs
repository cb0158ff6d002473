//! When a task becomes due: when it has waited long enough, or when its deadline leaves little slack.

use sealtasks::{SealTaskType, TaskId};

use crate::task::State;
use crate::{Millis, Refusal, Sched};

impl Sched {
    /// When a task of this kind becomes due: at the end of its wait limit, or earlier, so that twice its estimate and the
    /// slack of [`crate::Options`] are left before its deadline. Reckoned with the estimates of this moment: twice,
    /// because they may be wrong and an attempt may fail. What is due already stays due when the deadline has passed.
    pub(crate) fn due_at(&self, kind: SealTaskType, wait_until: Millis, deadline: Option<Millis>) -> Millis {
        let Some(deadline) = deadline else { return wait_until };
        let takes = self.estimate_anywhere(kind).millis;
        wait_until.min(deadline.before(takes).before(takes).before(self.options.deadline_slack))
    }

    pub(crate) fn set_deadline(&mut self, id: TaskId, deadline: Option<Millis>) -> Result<(), Refusal> {
        let at = self.tasks.find(id).ok_or(Refusal::TaskUnknown { task: id })?;
        let task = &self.tasks[at];
        let (before, class) = (task.key(), task.class);
        let due_at = self.due_at(task.seal_task(), task.wait_until, deadline);
        let now = self.now;
        let task = &mut self.tasks[at];
        (task.deadline, task.due_at, task.is_due) = (deadline, due_at, due_at <= now);
        let (after, is_due) = (task.key(), task.is_due);
        let listed = (self.tasks[at].group, id);
        let (is_staged, is_reserved) = (self.waits_staged(id), self.reservations.contains_key(&id));
        match self.tasks[at].state {
            State::Ready => {
                self.queue.remove(class, before);
                self.queue.insert(class, after, at);
            }
            State::Reserved(_) if !is_due => {
                self.unreserve(id);
                self.enqueue(at);
            }
            State::Bound(_) if is_due && is_staged && !is_reserved => {
                self.due_staged.insert(listed);
            }
            State::Bound(_) if !is_due && is_staged => {
                self.due_staged.remove(&listed);
                self.unreserve(id);
            }
            State::Idle | State::Locked | State::Delayed(_) | State::Reserved(_) | State::Bound(_) => {}
        }
        self.retime(at);
        Ok(())
    }
}
