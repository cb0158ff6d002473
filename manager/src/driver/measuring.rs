//! What workers are measured at: the time a task's work took, the rate at which files came. It is kept by the worker's
//! name, and what a worker brings to the scheduler when it registers. Never: an estimate; those are the scheduler's.

use rpc::api::AttemptAccount;
use rpc::extension::DurationView;
use sched::KindDuration;
use sealtasks::AttemptId;

use super::fleet::Worker;
use super::{Driver, Phase};
use crate::state::{CallStage, Measured, StateEvent};

impl Driver {
    /// Takes the measure of a call that worked. A Sealyard worker tells the times by its own clock. For a Lotus worker
    /// they are those between its answer to our call and its return, if we heard both; what it fetches is not known.
    pub(super) fn measure(&mut self, attempt: AttemptId, stage: CallStage, account: Option<AttemptAccount>) {
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let Some(open) = task.open.as_deref().filter(|open| open.id == attempt) else { return };
        let worker = open.name.clone();
        let heard = matches!(open.phase, Phase::Held(..)) && !open.unheard && open.accepted_ms > 0;
        let millis = match account {
            Some(told) if told.started_ms > 0 => told.ended_ms.saturating_sub(told.started_ms),
            Some(_) => return,
            None if heard => self.now_ms().saturating_sub(open.accepted_ms),
            None => return,
        };
        let bytes = account.map_or(0, |told| told.bytes_fetched);
        match (stage, task.work.task_type()) {
            (CallStage::Work, Some(task_type)) => {
                let proof = task.sector.proof;
                self.measured(StateEvent::DurationMeasured {
                    worker,
                    task_type,
                    proof,
                    millis,
                    peak_bytes: account.map_or(0, |told| told.peak_bytes),
                    cpu_ms: account.map_or(0, |told| told.cpu_ms),
                });
            }
            (CallStage::Prepare, _) if bytes > 0 => {
                self.measured(StateEvent::ThroughputMeasured { worker: worker.clone(), bytes, millis });
                self.throughput_changed(&worker);
            }
            (CallStage::Prepare | CallStage::Work, _) => {}
        }
    }

    /// Remembers a measurement as the rows will.
    fn measured(&mut self, event: StateEvent) {
        if let StateEvent::DurationMeasured { worker, .. } | StateEvent::ThroughputMeasured { worker, .. } =
            &event
        {
            self.measures.entry(worker.clone()).or_default().take(&event);
        }
        self.events.push(event);
    }

    /// Tells the scheduler at what rate the workers of this name fetch now. It learns durations by itself.
    fn throughput_changed(&mut self, name: &str) {
        let rate = self.measures.get(name).map_or(0, |known| known.throughput.bytes_per_second());
        let named = self.workers.values().filter(|worker| worker.name() == name);
        for session in named.map(|worker| worker.key.session).collect::<Vec<_>>() {
            self.change(session, |worker| worker.bandwidth = rate);
        }
    }

    /// Gives a worker that registers what was measured of it before.
    pub(super) fn recall(&self, worker: &mut Worker) {
        let Some(known) = self.measures.get(worker.name()) else { return };
        worker.durations = durations(known);
        worker.bandwidth = known.throughput.bytes_per_second();
    }

    /// What was measured of workers of this name, for people.
    pub(super) fn durations_of(&self, name: &str) -> Vec<DurationView> {
        let kinds = self.measures.get(name).into_iter().flat_map(|known| &known.durations);
        kinds
            .map(|(&(task, proof), duration)| DurationView {
                task,
                size: proof.sector_size(),
                count: duration.count,
                mean_ms: duration.mean_ms,
                last_ms: duration.last_ms,
                peak_bytes: duration.peak_bytes,
                cpu_ms: duration.cpu_ms,
            })
            .collect()
    }
}

fn durations(known: &Measured) -> Vec<KindDuration> {
    let kinds = known.durations.iter();
    kinds
        .map(|(&(task, proof), duration)| KindDuration {
            task,
            proof,
            millis: sched::Millis::new(duration.mean_ms),
        })
        .collect()
}
