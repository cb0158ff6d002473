//! What a person watches: one line per change, and on a terminal a moving line below them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rpc::extension::{JobView, ManagerOverview, SectorDetail};
use sealtasks::{AttemptId, TaskType};

use crate::show::{age, bytes, paint, talk};

/// Follows the sectors and says what changed.
pub struct Live {
    begun: Instant,
    said: BTreeMap<(u64, AttemptId), String>,
    states: BTreeMap<u64, String>,
    pending: BTreeMap<(String, TaskType), String>,
    line: ProgressBar,
}

impl Live {
    /// Starts the clock that the lines show.
    pub fn new() -> Self {
        let line = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            line.set_style(style);
        }
        line.enable_steady_tick(Duration::from_millis(120));
        Self {
            begun: Instant::now(),
            said: BTreeMap::new(),
            states: BTreeMap::new(),
            pending: BTreeMap::new(),
            line,
        }
    }

    /// Says one line of its own.
    pub fn say(&self, text: &str) {
        let stamp = self.begun.elapsed();
        self.line.suspend(|| talk!("[{:>6.2}s] {text}", stamp.as_secs_f64()));
    }

    /// Compares with what was said before and says the difference.
    pub fn follow(&mut self, details: &[SectorDetail], overview: &ManagerOverview) {
        for detail in details {
            for job in &detail.tasks {
                self.follow_task(detail, job);
            }
            let number = detail.sector.number.get();
            if self.states.get(&number) != Some(&detail.state) {
                self.states.insert(number, detail.state.clone());
                self.say(&format!("sector {number}: {}", paint::blue(&crate::show::state_of(detail))));
            }
        }
        for worker in &overview.workers {
            for (task, reason) in &worker.pending {
                self.follow_pending(&worker.name, *task, reason);
            }
        }
        self.line.set_message(self.summary(details, overview));
    }

    fn follow_task(&mut self, detail: &SectorDetail, job: &JobView) {
        let key = (detail.sector.number.get(), job.attempt);
        if self.said.get(&key) == Some(&job.state) {
            return;
        }
        self.said.insert(key, job.state.clone());
        let name = format!("{:<3}", job.task.short());
        let place = job.worker.as_deref().unwrap_or("?");
        let text = match job.state.as_str() {
            "done" => {
                let fetched = match job.bytes_fetched {
                    0 => String::new(),
                    count => format!(", {} fetched over HTTP", bytes(count)),
                };
                let span = age(job.ended_ms.saturating_sub(job.started_ms));
                format!("{} {name} on {place} in {span}{fetched}", paint::green("done"))
            }
            "failed" => format!("{} {name} on {place}: {}", paint::red("FAILED"), job.reason),
            "running" => format!("     {name} running on {place}"),
            _ => return,
        };
        self.say(&format!("sector {}: {text}", key.0));
    }

    /// Says a reason the first time, and when it becomes another one apart from its numbers.
    fn follow_pending(&mut self, worker: &str, task: TaskType, reason: &str) {
        let words: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        let key = (worker.to_owned(), task);
        if self.pending.get(&key) != Some(&words) {
            self.pending.insert(key, words);
            self.say(&format!("worker {worker}: {task} waits: {}", paint::yellow(reason)));
        }
    }

    fn summary(&self, details: &[SectorDetail], overview: &ManagerOverview) -> String {
        let running: Vec<String> = details
            .iter()
            .flat_map(|detail| {
                detail.tasks.iter().filter(|job| job.ended_ms == 0).map(move |job| (detail, job))
            })
            .map(|(detail, job)| format!("{}:{} {}", detail.sector.number, job.task, job.state))
            .collect();
        let waits = overview.workers.iter().flat_map(|worker| worker.pending.iter());
        let waits: Vec<String> = waits.map(|(task, reason)| format!("{task}: {reason}")).collect();
        let seconds = self.begun.elapsed().as_secs();
        format!("{}m{:02}s  {}  {}", seconds / 60, seconds % 60, running.join(", "), waits.join("; "))
    }

    /// Takes the moving line away.
    pub fn end(&self) {
        self.line.finish_and_clear();
    }
}
