//! How explanations read. Spans are counted from now; tasks are named by type and sector.

use std::fmt;

use sealtasks::{SealingPurpose, TaskType};

use crate::shortage::Bytes;
use crate::{
    EstimateSource, Eta, Finding, LockHolder, Millis, Obstacle, Place, Relief, Span, StartForecast,
    Whereabouts, Why,
};

/// One line for the task, one for its prospects, then one for each worker.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sector {} (task {}) ", self.kind, self.sector.id.number, self.task)?;
        self.whereabouts(f)?;
        self.prospects(f)?;
        for worker in &self.workers {
            write!(f, "\n{} ({}): ", worker.host, worker.worker)?;
            for (position, found) in worker.obstacles.iter().enumerate() {
                write!(f, "{}{found}", if position == 0 { "" } else { "; " })?;
            }
            match &worker.free {
                Some(free) if worker.obstacles.len() > 1 => write!(f, "; all of it: {free}")?,
                None if worker.obstacles.is_empty() => {}
                Some(_) if worker.obstacles.is_empty() => f.write_str("nothing is in the way")?,
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

impl Why {
    fn whereabouts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |at: &Millis| Span(self.now.since(*at));
        let within = |at: &Millis| Span(at.since(self.now));
        match &self.whereabouts {
            Whereabouts::Waiting => f.write_str("waits for a worker"),
            Whereabouts::Locked { busy, held_by } => {
                write!(f, "waits for its sector's {busy} files, locked by ")?;
                list(f, held_by)
            }
            Whereabouts::Delayed { until, reason } => {
                write!(f, "is tried again in {}", within(until))?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            Whereabouts::Reserved { worker, host, made_at, start_by, waits_for } => {
                write!(f, "is due, and {host} ({worker}) is kept for it since {} ago", ago(made_at))?;
                write!(f, ", to start within {}", within(start_by))?;
                if !waits_for.is_empty() {
                    f.write_str(" when these have ended: ")?;
                    list(f, waits_for)?;
                }
                Ok(())
            }
            Whereabouts::Staged { attempt, worker, host, fetched } => {
                write!(f, "is staged on {host} ({worker}) as attempt {attempt}; its files are ")?;
                match fetched {
                    None => f.write_str("there"),
                    Some(at) => write!(f, "expected {at}"),
                }
            }
            Whereabouts::Running { attempt, worker, host, since, ends } => {
                write!(f, "runs on {host} ({worker}) as attempt {attempt} since {} ago", ago(since))?;
                write!(f, " and should end {ends}")
            }
        }
    }

    fn prospects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.whereabouts, Whereabouts::Running { .. }) {
            return Ok(());
        }
        write!(f, "\nwanted since {} ago", Span(self.now.since(self.since)))?;
        if self.is_due {
            write!(f, ", due since {} ago", Span(self.now.since(self.due_at)))?;
        } else if self.due_at != Millis::new(u64::MAX) {
            write!(f, ", due in {}", Span(self.due_at.since(self.now)))?;
        }
        if let Some(deadline) = self.deadline {
            let missed = if deadline < self.now { "missed " } else { "" };
            let span = if deadline < self.now { self.now.since(deadline) } else { deadline.since(self.now) };
            write!(f, "; its deadline is {missed}{}", if missed.is_empty() { "in " } else { "by " })?;
            write!(f, "{}", Span(span))?;
        }
        write!(f, "; takes about {} ({})", Span(self.takes.millis), self.takes.source)?;
        if let Some(place) = self.place {
            write_place(f, place, self.kind)?;
        }
        match &self.start {
            Some(start) => write!(f, "; {start}")?,
            None => f.write_str("; when it can start nobody can tell")?,
        }
        self.lets_pass.iter().try_for_each(|lets_pass| lets_pass.write(f, self.now))
    }
}

/// `; 3 tasks go before it, 2 of them PC1`.
fn write_place(f: &mut fmt::Formatter<'_>, place: Place, kind: TaskType) -> fmt::Result {
    match (place.ahead, place.ahead_alike) {
        (0, _) => f.write_str("; it is the next in order"),
        (1, 0) => f.write_str("; 1 task goes before it, of another type or size"),
        (1, _) => write!(f, "; 1 task goes before it, a {kind} too"),
        (ahead, 0) => write!(f, "; {ahead} tasks go before it, all of other types or sizes"),
        (ahead, alike) if ahead == alike => write!(f, "; {ahead} tasks go before it, all of them {kind}"),
        (ahead, alike) => write!(f, "; {ahead} tasks go before it, {alike} of them {kind}"),
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if position == 0 { "" } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for StartForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.earliest {
            Millis::ZERO => f.write_str("could start any moment")?,
            wait => write!(f, "could start in about {}", Span(wait))?,
        }
        if self.likely != self.earliest {
            write!(f, ", with those before it in about {}", Span(self.likely))?;
            match self.at_once {
                1 => f.write_str(" (one such task runs at once)")?,
                more => write!(f, " ({more} such tasks run at once)")?,
            }
        }
        Ok(())
    }
}

/// `PC1 of sector 41 on fred, which should end in about 1h10m`.
impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} ({})", self.name, self.host, self.worker)?;
        match &self.ends {
            Some(ends) => write!(f, ", which should end {ends}"),
            None => f.write_str(", which has no slot yet"),
        }
    }
}

/// `in about 1h10m`, or `any moment (5m late)`.
impl fmt::Display for Eta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.overdue {
            Millis::ZERO => write!(f, "in about {}", Span(self.wait)),
            late => write!(f, "any moment ({} late)", Span(late)),
        }
    }
}

impl fmt::Display for EstimateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "measured there",
            Self::Others => "measured on the workers",
            Self::Builtin => "a published figure",
        })
    }
}

/// `needs 56 GiB of memory, 12 GiB free of 64 GiB; free in about 1h10m when PC1 of sector 41 ends`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.obstacle)?;
        match &self.relief {
            None => Ok(()),
            Some(relief) => write!(f, "; {relief}"),
        }
    }
}

impl fmt::Display for Relief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ends { task, at } => write!(f, "next free {at} when {task} ends"),
            Self::Starts { task, at } => write!(f, "{task} should start there {at}"),
            Self::Passes { at } => write!(f, "over {at}"),
            Self::OtherPrograms => f.write_str("free when other programs there use less"),
            Self::Never => f.write_str("more than the machine has"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered { task } => write!(f, "does not offer {task}"),
            Self::Disabled => f.write_str("is disabled"),
            Self::Cordoned => {
                f.write_str("is cordoned: it gets no new sectors, and no file of this one is there")
            }
            Self::Draining => {
                f.write_str("is draining: it finishes what lives there alone, and this task has no file there or others see to it")
            }
            Self::OtherPlan { plans, purpose } => {
                let plans: Vec<&str> = plans.iter().map(|plan| plan.word()).collect();
                write!(f, "this worker's plan is {}, and this sector is ", plans.join(" and "))?;
                f.write_str(match purpose {
                    SealingPurpose::New => "a new one",
                    SealingPurpose::Rebuild => "being rebuilt",
                })
            }
            Self::Suspect => f.write_str("was not heard of for a while"),
            Self::NotYet { task, reason } => write!(f, "does not yet offer {task}: {reason}"),
            Self::Staggered { task, until } => {
                write!(f, "starts no {task} before {until}, to keep starts apart")
            }
            Self::Capped { name, machine: None, running, most } => {
                write!(f, "runs {running} of its cap `{name}`, at most {most} may")
            }
            Self::Capped { name, machine: Some(machine), running, most } => {
                write!(f, "machine {machine} runs {running} of its cap `{name}`, at most {most} may")
            }
            Self::MachineShort { machine, shortage } => write!(f, "machine {machine}: {shortage}"),
            Self::MachineKeptFor { machine, task } => {
                write!(f, "machine {machine} is kept for {task}, which is due")
            }
            Self::Lost => f.write_str("is gone"),
            Self::Short(shortage) => shortage.fmt(f),
            Self::ReservedFor { task, .. } => write!(f, "is kept for {task}, which is due"),
            Self::FileElsewhere { kind, paths: 0 } => write!(f, "no known path holds the {kind} file"),
            Self::FileElsewhere { kind, paths } => {
                write!(f, "the {kind} file is out of reach, in {paths} paths of others")
            }
            Self::NoRoom { kind, path_type, most_free: None, .. } => {
                write!(f, "has no {path_type} path for the {kind} file")
            }
            // A path with so much room refuses the file for another reason.
            Self::NoRoom { kind, path_type, needs, most_free: Some(free), path } if free >= needs => {
                let (needs, free) = (Bytes((*needs).into()), Bytes((*free).into()));
                write!(f, "no {path_type} path takes the {kind} file of {needs}, though {free} are free in one")?;
                path.iter().try_for_each(|path| write!(f, ", {path}"))
            }
            Self::NoRoom { kind, path_type, needs, most_free: Some(free), path } => {
                let (needs, free) = (Bytes((*needs).into()), Bytes((*free).into()));
                write!(
                    f,
                    "needs {needs} in a {path_type} path for the {kind} file, at most {free} free in one"
                )?;
                path.iter().try_for_each(|path| write!(f, ", {path}"))
            }
        }
    }
}
