//! The periodic audit: every unfinished sector has exactly one thing that carries it on (a task, a timer, a question, a message,
//! its turn) or a reason to rest; whatever has none is an alert. Never: mends what it finds, for it is a fault of this program
//! or of its database, and a guess might lose a sector.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::fmt;

use pipeline::{SectorState, Step};
use rpc::extension::AlertView;
use sealtasks::{FileType, SectorId, StorageId, TaskId};

use super::input::{Busy, Sector};
use super::{Driver, Task};

#[cfg(test)]
mod tests;

/// Between two audits, in milliseconds. The first comes with the manager's first look around.
const EVERY_MS: u64 = 30_000;
/// What is found in so many audits, one after the other, is true: an answer can be on its way when it is first looked for.
const LOOKS: u32 = 2;
/// A task that was refused so often in a row, by whichever workers it was given to, is an alert: with the growing pauses between
/// the tries that is half an hour.
const REFUSALS: u32 = 10;
/// Paths that an alert names at most.
const PATHS_MAX: usize = 5;
/// Alerts kept and shown; beyond, they are only counted.
const ALERTS_MAX: usize = 1000;

/// What the audits found.
#[derive(Default)]
pub(crate) struct Audit {
    /// When the next is due, in Unix milliseconds.
    due_ms: u64,
    /// How many there were that left no doubt.
    count: u64,
    /// By sector: what is wrong, since when (Unix milliseconds), and in how many audits.
    found: BTreeMap<SectorId, Finding>,
    /// Which file sectors wait for, and since when, in Unix milliseconds.
    files: BTreeMap<SectorId, (FileType, u64)>,
}

struct Finding {
    fault: Fault,
    since_ms: u64,
    looks: u32,
}

/// What is wrong with a sector.
#[derive(Debug)]
struct Fault {
    /// As long as this is the same it is the same fault.
    text: String,
    /// What changes with other things than the sector: the paths that are away.
    place: String,
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self { text, place: String::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, self.place)
    }
}

impl Driver {
    /// Looks at every sector when it is time to.
    pub(super) fn audit(&mut self) {
        let now_ms = self.now_ms();
        // Until what waited is with the scheduler again, tasks look as if nobody had them.
        if now_ms < self.audit.due_ms || !self.shared.recovered.is_cancelled() {
            return;
        }
        let mut orphans = self.orphans();
        for (id, fault) in self.without_files(now_ms) {
            orphans.entry(id).or_insert(fault);
        }
        // A doubt is looked at again with the next look around, not after a whole period.
        let doubt = orphans.keys().any(|id| self.audit.found.get(id).is_none_or(|known| known.looks < LOOKS));
        let every_ms = EVERY_MS.min(self.file_awaited_ms());
        self.audit.due_ms = if doubt { 0 } else { now_ms.saturating_add(every_ms) };
        self.audit.count = self.audit.count.saturating_add(u64::from(!doubt));
        let mut before = std::mem::take(&mut self.audit.found);
        for (sector, fault) in orphans {
            let known = before.remove(&sector).filter(|known| known.fault.text == fault.text);
            let (since_ms, looks) = known.map_or((now_ms, 1), |known| (known.since_ms, known.looks + 1));
            if looks == LOOKS {
                tracing::error!(%sector, %fault, "nothing carries this sector on");
            }
            self.audit.found.insert(sector, Finding { fault, since_ms, looks: looks.min(LOOKS) });
        }
        for (sector, was) in before.into_iter().filter(|(_, was)| was.looks == LOOKS) {
            tracing::info!(%sector, fault = %was.fault, "that is over");
        }
    }

    /// How many audits there were since this manager started that left nothing to be looked at again.
    pub(crate) fn audits(&self) -> u64 {
        self.audit.count
    }

    /// What is certain.
    pub(crate) fn alerts(&self) -> Vec<AlertView> {
        let certain = self.audit.found.iter().filter(|(_, finding)| finding.looks == LOOKS);
        let view = |(sector, finding): (&SectorId, &Finding)| AlertView {
            system: "sectors".to_owned(),
            subject: self.shared.name(*sector).to_string(),
            text: finding.fault.to_string(),
            since_ms: finding.since_ms,
        };
        self.broken_workers().chain(certain.map(view)).take(ALERTS_MAX).collect()
    }

    /// Sectors that nothing carries on, or more than one thing, and why.
    fn orphans(&self) -> BTreeMap<SectorId, Fault> {
        let mut tasks = BTreeMap::<SectorId, Vec<TaskId>>::new();
        let mut found = BTreeMap::new();
        for task in self.tasks.values() {
            let errand = self.errands.get(&task.sector.id);
            if errand.is_none_or(|errand| errand.task != task.id) {
                tasks.entry(task.sector.id).or_default().push(task.id);
            } else if let Err(text) = self.answers(task) {
                found.insert(task.sector.id, text.into());
            }
        }
        let places = self.places_taken();
        for (id, sector) in &self.sectors {
            let own = tasks.remove(id).unwrap_or_default();
            if let Err(text) = self.carried(*id, sector, &own, &places) {
                found.insert(*id, text.into());
            }
        }
        for (id, own) in tasks {
            found.insert(id, format!("task {} is of a sector that is not there", own[0]).into());
        }
        found
    }

    /// Sectors that have waited for a file for long: the index tells when it knows of it, but somebody must bring it.
    fn without_files(&mut self, now_ms: u64) -> BTreeMap<SectorId, Fault> {
        let before = std::mem::take(&mut self.audit.files);
        let most_ms = self.file_awaited_ms();
        let (mut waiting, mut long) = (BTreeMap::new(), BTreeMap::new());
        // There may be many paths, and many sectors that wait.
        let away = LazyCell::new(|| self.paths_away());
        for (id, sector) in &self.sectors {
            let Busy::File(file) = sector.busy else { continue };
            let known = before.get(id).filter(|(awaited, _)| *awaited == file);
            let since_ms = known.map_or(now_ms, |(_, since_ms)| *since_ms);
            waiting.insert(*id, (file, since_ms));
            if now_ms.saturating_sub(since_ms) >= most_ms {
                let text = format!("{} waits for the {file} file: ", sector.record.state().name());
                long.insert(*id, Fault { text, place: self.held_where(*id, file, away.as_deref()) });
            }
        }
        self.audit.files = waiting;
        long
    }

    fn file_awaited_ms(&self) -> u64 {
        u64::try_from(self.shared.timing.file_awaited.as_millis()).unwrap_or(u64::MAX)
    }

    /// The paths that something may lie in which nobody who is here has, for people.
    fn paths_away(&self) -> Option<String> {
        let paths = self.shared.index.paths().into_iter();
        let away = paths.filter(|path| !path.confirmed || !path.healthy).map(|path| path.info.id);
        named("not here, or not healthy, are", away.collect())
    }

    /// Where a file may be that nobody who is here has.
    fn held_where(&self, sector: SectorId, file: FileType, away: Option<&str>) -> String {
        let held = self.shared.index.sector_files(sector).into_iter();
        let remembered = held.filter(|held| held.unconfirmed.contains(file)).map(|held| held.id);
        let start = "start the worker, or attach the path, that has it";
        match (named("it lay in path", remembered.collect()), away) {
            (Some(place), _) => format!("{place}, which is not back; {start}"),
            (None, Some(away)) => format!("no path that is here has it; {away}; {start}"),
            (None, None) => format!("every path that is known is here, and none has it; {start}"),
        }
    }

    /// `own` are the live tasks of its pipeline.
    fn carried(
        &self,
        id: SectorId,
        sector: &Sector,
        own: &[TaskId],
        places: &BTreeMap<SectorState, usize>,
    ) -> Result<(), String> {
        let state = sector.record.state().name();
        if let Some(stray) = own.iter().find(|task| sector.busy != Busy::Task(**task)) {
            return Err(format!("task {stray} is live, but {state} does not wait for it"));
        }
        match &sector.busy {
            Busy::Task(task) => match self.tasks.get(task).filter(|_| own.contains(task)) {
                Some(task) => self.is_live(task),
                None => Err(format!("{state} waits for task {task}, which is not there")),
            },
            Busy::Until(at) if self.timers.contains(&(*at, id)) => Ok(()),
            Busy::Until(at) => Err(format!("{state} waits for a timer at {at} ms, which is not set")),
            // The index tells when it knows of the file; see `without_files`.
            Busy::File(_) => Ok(()),
            Busy::Stage if self.has_no_place(sector.record.state(), places) => Ok(()),
            Busy::Stage => Err(format!("{state} waits for a place, and there is one")),
            Busy::Asking if self.moves.contains_key(&id) || self.shared.asked.contains(id) => Ok(()),
            Busy::Asking if self.shared.messages.as_ref().is_some_and(|office| office.watches(id)) => Ok(()),
            Busy::Asking => Err(format!("{state} waits for an answer that nobody is going to give")),
            Busy::Free => match sector.record.next() {
                Step::Done | Step::Rest { .. } => Ok(()),
                _ => Err(format!("{state} is to go on, and nothing is under way")),
            },
        }
    }

    /// How many sectors are in each state, but for those that wait for a place there or do nothing. One that was let in has
    /// its place already while it asks whether it may begin.
    fn places_taken(&self) -> BTreeMap<SectorState, usize> {
        let mut taken = BTreeMap::new();
        for sector in self.sectors.values().filter(|it| !matches!(it.busy, Busy::Stage | Busy::Free)) {
            *taken.entry(sector.record.state()).or_default() += 1;
        }
        taken
    }

    fn has_no_place(&self, state: SectorState, places: &BTreeMap<SectorState, usize>) -> bool {
        let most = self.stage_limit(state).and_then(|most| usize::try_from(most).ok());
        most.is_some_and(|most| places.get(&state).is_some_and(|taken| *taken >= most))
    }

    /// A task is the scheduler's, or a worker's, or waits for somebody whose end brings it on.
    fn is_live(&self, task: &Task) -> Result<(), String> {
        let id = task.id;
        let waits_for_nobody = task.held_back
            && task.open.is_none()
            && task.in_line.is_none()
            && task.turn.is_none()
            && self.holding_back(task.sector.id).is_none()
            && !self.shared.asked.contains(task.sector.id);
        if waits_for_nobody {
            return Err(format!("task {id} is held back, and nobody holds it"));
        }
        // An open attempt waits for its worker's word, also where the scheduler has not been told of it yet.
        if !task.held_back && task.open.is_none() && !self.sched.knows(id) {
            return Err(format!("task {id} waits, and the scheduler does not know it"));
        }
        if task.refusals >= REFUSALS {
            return Err(format!(
                "task {id} could not be started {REFUSALS} times in a row; `sealyard sealing why` says what was answered"
            ));
        }
        self.answers(task)
    }

    /// Whether whoever holds the task, or holds it up, will end that by itself. A Lotus worker of which nothing was heard for
    /// long may work on it still, so only an operator can tell that it does not.
    fn answers(&self, task: &Task) -> Result<(), String> {
        let id = task.id;
        let Some(open) = task.open.as_deref() else {
            let mut given_up = self.detached.values().filter(|given_up| given_up.sector.id == task.sector.id);
            return match given_up
                .find_map(|given_up| Some((given_up.open.id, self.left_with(&given_up.open)?)))
            {
                Some((attempt, whom)) => Err(format!(
                    "task {id} waits for the end of attempt {attempt}, which was given up, on {whom}; if nothing works on it any \
                     more, `sealyard sealing abort {attempt}` frees what it holds"
                )),
                None => Ok(()),
            };
        };
        match self.left_with(open) {
            Some(whom) => Err(format!(
                "task {id} is on {whom}; if nothing works on it any more, `sealyard sealing abort {}` gives it up",
                open.id
            )),
            None => Ok(()),
        }
    }
}

/// Paths, of which not all are named where they are many.
fn named(what: &str, paths: Vec<StorageId>) -> Option<String> {
    let names: Vec<_> = paths.iter().take(PATHS_MAX).map(StorageId::as_str).collect();
    let more = paths.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!paths.is_empty()).then(|| format!("{what} {}{more}", names.join(", ")))
}
