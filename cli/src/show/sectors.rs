//! `sectors list` and `sectors status`.

use rpc::Miners;
use rpc::extension::SectorDetail;

use super::{FoundSector, age, clock, line, paint, print_older};
use crate::exit::Outcome;

/// The state as shown: without a chain a sector is proven to nobody but us, and says so.
pub fn state_of(detail: &SectorDetail) -> String {
    if detail.rehearsal {
        return format!("{} (REHEARSAL)", detail.state);
    }
    match (detail.state.as_str(), detail.chain.as_str()) {
        ("Proving", "offline") => "Proving (offline)".to_owned(),
        (state, _) => state.to_owned(),
    }
}

/// Lotus's palette: green at rest, red when failed, yellow under way.
fn painted(state: &str) -> String {
    if state.starts_with("Proving") || state.starts_with("Available") {
        paint::green(state)
    } else if state.contains("Fail") || state.contains("Fault") {
        paint::red(state)
    } else {
        paint::yellow(state)
    }
}

/// Prints one line per sector.
pub fn print_sectors(sectors: &[SectorDetail], miners: &Miners) -> Outcome {
    if sectors.is_empty() {
        return line("no sectors; `sealyard sectors pledge` starts one");
    }
    line(&format!("{:<8}{:<28}{:<8}{:<10}Now", "ID", "State", "Proof", "Tasks"))?;
    for sector in sectors {
        let state = state_of(sector);
        let gap = " ".repeat(28usize.saturating_sub(state.chars().count()));
        let done = sector.tasks.iter().filter(|task| task.state == "done").count();
        let now = sector.tasks.last().filter(|task| task.state != "done");
        let now = now.map(|task| {
            let place = task.worker.as_deref().map(|name| format!(" on {name}")).unwrap_or_default();
            let reason = if task.reason.is_empty() { String::new() } else { format!(": {}", task.reason) };
            format!("{} {}{place}{reason}", task.task, task.state)
        });
        let tail = now.unwrap_or_default();
        let id = miners.name(sector.sector).to_string();
        line(&format!("{id:<8} {}{gap}{:<8}{done:<10}{tail}", painted(&state), sector.proof_type))?;
        // Its first line says what failed; `sectors status` has all of it, a program's last words included.
        if let Some(first) = sector.last_error.lines().next() {
            line(&format!("        {}", paint::red(first)))?;
        }
    }
    Ok(())
}

/// Prints everything known of one sector.
pub fn print_sector(sector: &SectorDetail, log: bool) -> Outcome {
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    line(&format!("SectorID:\t{}", sector.sector.number))?;
    line(&format!("Status:\t\t{}", painted(&state_of(sector))))?;
    line(&format!("Miner:\t\tf0{}", sector.sector.miner.get()))?;
    line(&format!("SealProof:\t{}", sector.proof_type))?;
    line(&format!("Chain:\t\t{}", sector.chain))?;
    line(&format!("CIDcommD:\t{}", value(&sector.comm_d)))?;
    line(&format!("CIDcommR:\t{}", value(&sector.comm_r)))?;
    line(&format!("Ticket:\t\t{}", value(&sector.ticket)))?;
    line(&format!("TicketH:\t{}", sector.ticket_epoch))?;
    line(&format!("Seed:\t\t{}", value(&sector.seed)))?;
    line(&format!("SeedH:\t\t{}", sector.seed_epoch))?;
    if let Some(message) = &sector.pre_commit_message {
        line(&format!("Precommit:\t{message}"))?;
    }
    line(&format!("C1 SHA-256:\t{}", value(&sector.c1_sha256)))?;
    line(&format!("Proof:\t\t{}", value(&sector.proof)))?;
    let verified = match sector.verified {
        Some(true) => paint::green("yes"),
        Some(false) => paint::red("NO"),
        None if sector.rehearsal => "never: a REHEARSAL".to_owned(),
        None => "not yet".to_owned(),
    };
    line(&format!("Verified:\t{verified}"))?;
    if let Some(message) = &sector.commit_message {
        line(&format!("Commit:\t\t{message}"))?;
    }
    for (size, cid) in &sector.pieces {
        line(&format!("Piece:\t\t{size} {cid}"))?;
    }
    for data in &sector.data {
        let place = match data.offset {
            Some(offset) => format!("at {offset}"),
            None => "waits to be written".to_owned(),
        };
        line(&format!("Data:\t\t{} bytes {place}, {}", data.bytes, data.cid))?;
    }
    line(&format!("Retries:\t{}", sector.invalid_proofs))?;
    if !sector.last_error.is_empty() {
        line(&format!("Last Error:\t{}", paint::red(&sector.last_error)))?;
    }
    if sector.stopped {
        line("Stopped:\tas it was pledged to; `sealyard sectors retry` has it go on to Proving")?;
    }
    print_older(&sector.older)?;
    for task in &sector.tasks {
        let place = task.worker.as_deref().unwrap_or("-");
        let span = if task.ended_ms > task.started_ms && task.started_ms > 0 {
            age(task.ended_ms - task.started_ms)
        } else {
            "-".to_owned()
        };
        line(&format!("Task:\t\t{:<4} {:<12} on {place:<12} {span}", task.task.short(), task.state))?;
    }
    if log {
        line("--------\nEvent Log:")?;
        for (index, (at, kind, text)) in sector.log.iter().enumerate() {
            line(&format!("{index}.\t{}:\t[{kind}]\t{text}", clock(*at)))?;
        }
    }
    Ok(())
}

/// Prints what is known of one sector in sections.
pub fn print_state(sector: &SectorDetail, found: &FoundSector) -> Outcome {
    let value = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let under_way = sector.state != "Proving";
    let id = format!("s-t0{}-{}", sector.sector.miner.get(), sector.sector.number);
    line(&format!("Common:\n    Sector: {id}\n    Proof type: {}", sector.proof_type))?;
    line(&format!("    Chain: {}\n    Offline: {}", sector.chain, !under_way))?;
    line(&format!("LatestState:\n    State: {}", painted(&state_of(sector))))?;
    if let Some(task) = sector.tasks.last() {
        let worker = task.worker.as_deref().unwrap_or("-");
        line(&format!("    Task: {} {} on {worker}", task.task.short(), task.state))?;
    }
    if let Some((at, _, text)) = sector.log.last() {
        line(&format!("    Event: {} {text}", clock(*at)))?;
    }
    if !sector.last_error.is_empty() {
        line(&format!("    Error: {}", paint::red(&sector.last_error)))?;
    }
    line(&format!("Deals:\n    Pieces with data: {}", sector.data.len()))?;
    for data in &sector.data {
        line(&format!("    {} {} of {} padded bytes", data.cid, data.bytes, data.padded_size))?;
    }
    line(&format!("Sealing:\n    Ticket: {} at {}", value(&sector.ticket), sector.ticket_epoch))?;
    line(&format!("    Seed: {} at {}", value(&sector.seed), sector.seed_epoch))?;
    line(&format!("    CommD: {}\n    CommR: {}", value(&sector.comm_d), value(&sector.comm_r)))?;
    let rebuild = match (sector.rebuilt, under_way) {
        (true, true) => "under way",
        (true, false) => "done",
        (false, _) => "never",
    };
    line(&format!("Rebuild:\n    {rebuild}\nFiles:"))?;
    for place in &found.places {
        let away = if place.types.is_empty() { " (remembered, not back)" } else { "" };
        let types = if place.types.is_empty() { &place.unconfirmed } else { &place.types };
        line(&format!("    {} in {}{away}", types.join(", "), place.path))?;
    }
    Ok(())
}
