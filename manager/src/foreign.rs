//! Files of sectors that this manager has no record of: shown when paths are surveyed, and never deleted. They may be
//! another miner's, or of a manager that was here before. Never: touches a file.

use std::path::Path;

use rpc::api::ApiResult;
use rpc::storage::PathHost;
use sealtasks::{CleanedEntry, FileType, Finding, Matter, PathOrder, PathSurvey, SectorId};

use crate::service::Service;

/// Findings of one path that are told, as in the paths' own surveys.
const FOREIGN_MAX: usize = stores::FINDINGS_MAX;

impl Service {
    /// Adds to each path's findings the declared files of unknown sectors, and takes back what was offered of such.
    pub(crate) async fn with_foreign(
        &self,
        host: &PathHost,
        surveys: Vec<PathSurvey>,
    ) -> ApiResult<Vec<PathSurvey>> {
        let mut told = Vec::new();
        for mut path in surveys {
            let declared = self.0.index.path_files(&path.id);
            let of_findings = path.findings.iter().filter_map(|found| found.file).map(|(sector, _)| sector);
            let sectors = declared.iter().map(|(decl, _)| decl.sector).chain(of_findings).collect();
            let unknown = self.unknown(sectors).await?;
            for found in path.findings.iter_mut().filter(|found| is_whole(found.matter)) {
                if let Some((sector, _)) =
                    found.file.filter(|(sector, _)| unknown.binary_search(sector).is_ok())
                {
                    (found.matter, found.offered, found.reason) = (Matter::Foreign, false, no_record(sector));
                }
            }
            for found in path.findings.iter_mut().filter(|found| found.matter == Matter::NotInIndex) {
                let (id, index) = (&path.id, &self.0.index);
                let is_old = |(sector, kind)| index.superseded_in(id, sector).contains(kind);
                if found.file.is_some_and(is_old) {
                    found.reason = format!("an older copy than what a task has made since; {}", found.reason);
                }
            }
            let foreign = declared.iter().filter(|(decl, _)| unknown.binary_search(&decl.sector).is_ok());
            for (decl, _) in foreign {
                for kind in decl.types.iter() {
                    path.findings.push(finding(&path.dir, decl.sector, kind));
                }
            }
            self.add_removed(&mut path, &declared).await?;
            path.findings.sort_by(|one, other| one.entry.cmp(&other.entry));
            path.findings.truncate(FOREIGN_MAX);
            self.with_sizes(host, &mut path).await;
            told.push(path);
        }
        Ok(told)
    }

    /// Fills in the sizes and ages of what was added here: only its host can look.
    async fn with_sizes(&self, host: &PathHost, path: &mut PathSurvey) {
        let added = |found: &Finding| {
            found.bytes == 0 && matches!(found.matter, Matter::Foreign | Matter::RemovedSector)
        };
        let findings: Vec<_> = path.findings.iter_mut().filter(|found| added(found)).collect();
        let (mut named, mut files) = (Vec::new(), Vec::new());
        for found in findings {
            if let Some((sector, kind)) = found.file {
                files.push((path.id.clone(), sector, kind));
                named.push(found);
            }
        }
        for (found, size) in named.into_iter().zip(self.measure(host, files).await) {
            (found.bytes, found.age_s) = (size.bytes, size.age_s);
        }
    }

    /// Takes files of unknown sectors out of a clean-up.
    pub(crate) async fn without_foreign(
        &self,
        order: PathOrder,
    ) -> ApiResult<(PathOrder, Vec<CleanedEntry>)> {
        let PathOrder::CleanUp { entries, old } = order else { return Ok((order, Vec::new())) };
        let unknown = self.unknown(entries.iter().filter_map(|entry| whole_file_of(entry)).collect()).await?;
        let (mut left, mut refused) = (Vec::new(), Vec::new());
        for entry in entries {
            match whole_file_of(&entry).filter(|sector| unknown.binary_search(sector).is_ok()) {
                None => left.push(entry),
                Some(sector) => {
                    refused.push(CleanedEntry { entry, bytes: 0, kept: Some(no_record(sector)) });
                }
            }
        }
        Ok((PathOrder::CleanUp { entries: left, old }, refused))
    }

    /// Those of the sectors that have no record, in order.
    async fn unknown(&self, mut sectors: Vec<SectorId>) -> ApiResult<Vec<SectorId>> {
        sectors.sort_unstable();
        sectors.dedup();
        self.view(move |driver| {
            sectors.retain(|sector| driver.state_name(*sector).is_none());
            sectors
        })
        .await
    }
}

const fn is_whole(matter: Matter) -> bool {
    matches!(matter, Matter::NotInIndex | Matter::Replaced | Matter::KeptFromDeletion)
}

/// The sector of an entry that a survey may have found whole: a file in its place, or one whose place another took.
fn whole_file_of(entry: &Path) -> Option<SectorId> {
    let name = entry.file_name()?.to_str()?;
    let aside = name.split_once(".replaced-").or_else(|| name.split_once(".doubted-"));
    if let Some((sector, _)) = aside {
        return sector.parse().ok();
    }
    // A Lotus's fetches lie in `fetching/` under the same name, and are no whole file of anybody.
    let _kind: FileType = entry.parent()?.file_name()?.to_str()?.parse().ok()?;
    name.parse().ok()
}

fn no_record(sector: SectorId) -> String {
    format!("this manager has no record of sector {sector}; not its to delete")
}

fn finding(dir: &Path, sector: SectorId, kind: FileType) -> Finding {
    Finding {
        entry: dir.join(kind.name()).join(sector.to_string()),
        matter: Matter::Foreign,
        file: Some((sector, kind)),
        bytes: 0,
        age_s: 0,
        offered: false,
        reason: no_record(sector),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lotus_was_fetching_is_no_whole_file() {
        let sector = Some(SectorId::new(1000, 8));
        assert_eq!(whole_file_of(Path::new("/p/sealed/s-t01000-8")), sector);
        assert_eq!(whole_file_of(Path::new("/p/sealed/fetching/s-t01000-8.replaced-1")), sector);
        assert_eq!(whole_file_of(Path::new("/p/sealed/fetching/s-t01000-8.doubted-1")), sector);
        assert_eq!(whole_file_of(Path::new("/p/sealed/fetching/s-t01000-8")), None);
        assert_eq!(whole_file_of(Path::new("/p/sealed/fetching/s-t01000-8.part")), None);
    }
}
