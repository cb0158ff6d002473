//! `storage list sectors`, `storage locks`, and what the care of paths finds: differences, leftovers, plans.

use rpc::Miners;
use rpc::storage::{LockHolder, LockedSector, StoragePathView, StoredSector};
use sealtasks::{CleanedEntry, FileType, FileTypes, PathDifference, PathSurvey, SectorId};

use super::{age, bytes, line, paint, plain};
use crate::exit::Outcome;

/// Differences of one path that are printed; further ones are counted.
const SHOWN_MAX: usize = 50;

/// Prints the head of `storage list sectors`.
pub fn print_stored_head() -> Outcome {
    line(&format!(
        "{:<38}{:<10} {:<14}{:<22}{:<9}{:<12}URLs",
        "Storage", "Sector", "Type", "State", "Primary", "Path use"
    ))
}

/// Prints one line per file of a path's page of sectors. `at` counts paths, which alternate in colour.
pub fn print_stored(path: &StoragePathView, at: usize, page: &[StoredSector], miners: &Miners) -> Outcome {
    let tint = if at.is_multiple_of(2) { paint::blue } else { paint::cyan };
    let uses = [(path.can_seal, "seal"), (path.can_store, "store")];
    let uses: Vec<&str> = uses.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
    for stored in page {
        for kind in stored.types.iter() {
            line(&format!(
                "{}{:<10} {:<14}{:<22}{}{:<12}{}",
                tint(&format!("{:<38}", path.id)),
                miners.name(stored.sector).to_string(),
                kind.name(),
                stored.state.as_deref().unwrap_or("no record"),
                copy_word(stored, kind),
                uses.join(" "),
                plain(&path.urls.join(";"))
            ))?;
        }
    }
    Ok(())
}

/// `main` is the danger sign: the only copy, and it does not count.
fn copy_word(stored: &StoredSector, kind: FileType) -> String {
    if stored.primary.contains(kind) {
        paint::green(&format!("{:<9}", "primary"))
    } else if stored.alone.contains(kind) {
        paint::red(&format!("{:<9}", "main"))
    } else {
        paint::blue(&format!("{:<9}", "copy"))
    }
}

/// Prints one line per locked sector, and one per holder.
pub fn print_locks(locked: &[LockedSector], miners: &Miners, now_ms: u64) -> Outcome {
    if locked.is_empty() {
        return line("no locks");
    }
    for sector in locked {
        let state = sector.state.as_deref().unwrap_or("no record");
        let waiting = if sector.waiting > 0 { format!("\t{} wait", sector.waiting) } else { String::new() };
        let types: Vec<String> = FileType::ALL.into_iter().filter_map(|kind| in_use(sector, kind)).collect();
        line(&format!("{}\t{state}\t{}{waiting}", miners.name(sector.sector), types.join(" ")))?;
        for holder in &sector.holders {
            let since = age(now_ms.saturating_sub(holder.since_ms));
            let words = lock_words(holder);
            let ends = holder.until_ms.map_or_else(String::new, |until| {
                format!(", ends in {} unless it reads on", age(until.saturating_sub(now_ms)))
            });
            line(&format!(
                "        {words}: {} for {}, for {since}{ends}",
                plain(&holder.owner),
                plain(&holder.reason)
            ))?;
        }
        for waiter in &sector.waiters {
            line(&format!(
                "        waits: {} for {} ({}), for {}",
                plain(&waiter.owner),
                plain(&waiter.reason),
                lock_words(waiter),
                age(now_ms.saturating_sub(waiter.since_ms))
            ))?;
        }
    }
    Ok(())
}

fn in_use(sector: &LockedSector, kind: FileType) -> Option<String> {
    if sector.holders.iter().any(|holder| holder.write.contains(kind)) {
        return Some(paint::red(&format!("{kind}(W)")));
    }
    let readers = sector.holders.iter().filter(|holder| holder.read.contains(kind)).count();
    (readers > 0).then(|| paint::green(&format!("{kind}(R:{readers})")))
}

/// What a holder holds: `writes sealed, reads unsealed`.
pub fn lock_words(holder: &LockHolder) -> String {
    let part = |verb: &str, types: FileTypes| (!types.is_empty()).then(|| format!("{verb} {types}"));
    let parts = [part("writes", holder.write), part("reads", holder.read)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Prints how disk and index differ; `drops` says whether what is missing is taken out.
pub fn print_differences(differences: &[PathDifference], drops: bool, miners: &Miners) -> Outcome {
    for path in differences {
        let (more, less) = (path.added.len(), path.missing.len());
        line(&format!(
            "{} ({}): {} sectors as known, {more} to declare, {less} missing",
            path.id,
            plain(&path.dir.to_string_lossy()),
            path.unchanged
        ))?;
        print_sectors("declare", &path.added, miners, paint::green)?;
        print_sectors(if drops { "drop" } else { "keep (missing)" }, &path.missing, miners, paint::red)?;
    }
    Ok(())
}

fn print_sectors(
    verb: &str,
    sectors: &[(SectorId, FileTypes)],
    miners: &Miners,
    tint: fn(&str) -> String,
) -> Outcome {
    for (sector, types) in sectors.iter().take(SHOWN_MAX) {
        line(&format!("        {}", tint(&format!("{verb} {types} of sector {}", miners.name(*sector)))))?;
    }
    match sectors.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => line(&format!("        … and {more} more; --json tells them all")),
    }
}

/// Prints what lies in the paths and should not.
pub fn print_surveys(surveys: &[PathSurvey]) -> Outcome {
    for path in surveys {
        line(&format!("{} ({}):", path.id, plain(&path.dir.to_string_lossy())))?;
        if let Some(error) = &path.error {
            line(&format!("        {}", paint::red(&format!("Error: {}", plain(error)))))?;
        }
        if path.findings.is_empty() && path.error.is_none() {
            line("        nothing")?;
        }
        for found in &path.findings {
            let mark = if found.offered { paint::yellow("delete") } else { paint::green("keep  ") };
            line(&format!(
                "        {mark} {} ({}, {}, {} old): {}",
                plain(&found.entry.to_string_lossy()),
                found.matter.words(),
                bytes(found.bytes),
                age(found.age_s.saturating_mul(1000)),
                plain(&found.reason)
            ))?;
        }
    }
    Ok(())
}

/// Prints what became of each entry that was to go.
pub fn print_cleaned(cleaned: &[CleanedEntry]) -> Outcome {
    for one in cleaned {
        let entry = plain(&one.entry.to_string_lossy());
        match &one.kept {
            None => line(&format!("deleted {entry} ({})", bytes(one.bytes)))?,
            Some(why) => line(&paint::red(&format!("kept {entry}: {}", plain(why))))?,
        }
    }
    Ok(())
}
