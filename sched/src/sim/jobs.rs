//! The simulated sectors on their way through their stages, and the tasks that these become.

use std::collections::{BTreeMap, VecDeque};

use sealtasks::{SectorRef, TaskId};

use super::cluster::{Job, Workload};
use super::engine::{Due, Engine};
use super::report::SectorSpan;
use super::watch::{Violation, Watch};
use super::{Scheduler, Shape};
use crate::{End, Event, Millis, Request};

/// All jobs and the tasks that the scheduler has not finished with.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Vec<JobState>,
    open_max: usize,
    open: usize,
    /// Released, and too many are open.
    held_back: VecDeque<usize>,
    tasks: BTreeMap<TaskId, SimTask>,
    last_task: u64,
}

#[derive(Debug)]
struct JobState {
    job: Job,
    /// The stage that is next or under way.
    stage: usize,
    /// When the first stage was submitted.
    begun: Option<Millis>,
    is_over: bool,
}

/// One submitted task.
#[derive(Debug)]
pub(super) struct SimTask {
    pub(super) job: usize,
    pub(super) sector: SectorRef,
    pub(super) shape: Shape,
    pub(super) work: Millis,
    pub(super) request: Request,
    /// When it was submitted; taken when its first attempt begins to work.
    pub(super) submitted: Option<Millis>,
}

impl Jobs {
    pub(super) fn new(workload: Workload) -> Self {
        let state = |job| JobState { job, stage: 0, begun: None, is_over: false };
        Self {
            jobs: workload.jobs.into_iter().map(state).collect(),
            open_max: workload.open_max.unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Job> + Clone {
        self.jobs.iter().map(|state| &state.job)
    }

    pub(super) fn task(&self, task: TaskId) -> Option<&SimTask> {
        self.tasks.get(&task)
    }

    pub(super) fn task_mut(&mut self, task: TaskId) -> Option<&mut SimTask> {
        self.tasks.get_mut(&task)
    }

    pub(super) fn ids(&self) -> Vec<TaskId> {
        self.tasks.keys().copied().collect()
    }

    /// The task at this position, counted round.
    pub(super) fn nth(&self, position: usize) -> Option<TaskId> {
        self.tasks.keys().nth(position % self.tasks.len().max(1)).copied()
    }

    pub(super) fn unfinished(&self) -> usize {
        self.jobs.iter().filter(|job| !job.is_over).count()
    }
}

impl<S: Scheduler, W: Watch<S>> Engine<S, W> {
    /// Submits the job's next stage, or has it wait until fewer jobs are open.
    pub(super) fn next_stage(&mut self, position: usize) -> Result<(), Violation> {
        let since = self.told(self.now);
        let jobs = &mut self.jobs;
        let state = &mut jobs.jobs[position];
        if state.begun.is_none() {
            if jobs.open >= jobs.open_max {
                jobs.held_back.push_back(position);
                return Ok(());
            }
            jobs.open += 1;
            state.begun = Some(self.now);
        }
        let Some(stage) = state.job.stages.get(state.stage).copied() else {
            self.end_job(position, true);
            return Ok(());
        };
        let sector = state.job.sector;
        let files = &self.files;
        let mut request = stage.shape.request(sector, since, |kind| files.places(sector.id, kind));
        request.purpose = state.job.purpose;
        request.priority = state.job.priority;
        request.wait_limit = state.job.wait_limit;
        request.deadline = state.job.deadline;
        jobs.last_task += 1;
        let task = TaskId::new(jobs.last_task);
        let sim_task = SimTask {
            job: position,
            sector,
            shape: stage.shape,
            work: stage.work,
            request: request.clone(),
            submitted: Some(self.now),
        };
        jobs.tasks.insert(task, sim_task);
        self.tell(Event::Submit { task, request })
    }

    /// The scheduler is done with a task: the job goes on, or is over.
    pub(super) fn task_left(&mut self, id: TaskId, end: End) {
        let Some(task) = self.jobs.tasks.remove(&id) else { return };
        self.note_end();
        match end {
            End::Finished => {
                let state = &mut self.jobs.jobs[task.job];
                state.stage += 1;
                match state.job.stages.get(state.stage).map(|stage| stage.gap) {
                    Some(gap) => self.put(self.now.after(gap), Due::Stage(task.job)),
                    None => self.end_job(task.job, true),
                }
            }
            End::Failed | End::Cancelled => self.end_job(task.job, false),
        }
    }

    fn end_job(&mut self, position: usize, well: bool) {
        let jobs = &mut self.jobs;
        let state = &mut jobs.jobs[position];
        state.is_over = true;
        jobs.open -= 1;
        if well {
            let from = state.begun.unwrap_or_default();
            self.report.sectors.push(SectorSpan { sector: state.job.sector.id, from, to: self.now });
        } else {
            self.report.failed += 1;
        }
        if let Some(next) = jobs.held_back.pop_front() {
            self.put(self.now, Due::Stage(next));
        }
    }
}
