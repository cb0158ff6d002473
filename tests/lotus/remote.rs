//! `/remote` as Lotus serves it: ranges on files only, directories as unterminated tar, HEAD unknown, every failure 500.

use std::path::Path;

use super::disk::{StoragePath, roomy, unterminated_tar};
use super::http::{Answer, Request};
use super::{sector_name, type_bit};

/// A deletion that a peer asked for.
pub struct Deletion {
    pub bit: u64,
    pub sector: (u64, u64),
}

/// Answers a request of somebody with permission admin. `delete` is told what to remove and drops it from the index.
pub fn serve(
    request: &Request,
    path: &StoragePath,
    delete: impl FnOnce(&Deletion) -> Result<(), String>,
) -> Answer {
    let parts: Vec<&str> = request.path().trim_start_matches('/').split('/').collect();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["remote", "stat", id]) if *id == path.id => {
            Answer::with(200, "text/plain; charset=utf-8", format!("{}\n", roomy()).into_bytes())
        }
        ("GET", ["remote", "stat", _]) => Answer::status(404),
        ("GET", ["remote", kind, sector]) => match located(path, kind, sector) {
            Some((_, bit, file)) if file.exists() && matches!(bit, 4 | 16) => directory(request, &file),
            Some((_, _, file)) if file.exists() => plain(request, &file),
            _ => Answer::status(500),
        },
        ("DELETE", ["remote", kind, sector]) => {
            let kept = request.query("keep").is_some_and(|ids| ids.split('.').any(|id| id == path.id));
            match located(path, kind, sector) {
                Some((sector, bit, file)) if file.exists() && !kept => {
                    match delete(&Deletion { bit, sector }) {
                        Ok(()) => Answer::status(200),
                        Err(_) => Answer::status(500),
                    }
                }
                Some(_) if kept => Answer::status(200),
                _ => Answer::status(500),
            }
        }
        (_, ["remote", _, _]) => Answer::status(405),
        _ => Answer::status(404),
    }
}

fn located(path: &StoragePath, kind: &str, name: &str) -> Option<((u64, u64), u64, std::path::PathBuf)> {
    let bit = type_bit(kind)?;
    let (miner, number) = name.strip_prefix("s-t0")?.split_once('-')?;
    let sector = (miner.parse().ok()?, number.parse().ok()?);
    (sector_name(sector.0, sector.1) == name).then(|| (sector, bit, path.file(bit, sector)))
}

fn directory(request: &Request, dir: &Path) -> Answer {
    if request.header("range").is_some() {
        return Answer::status(500);
    }
    Answer { chunked: true, ..Answer::with(200, "application/x-tar", unterminated_tar(dir)) }
}

fn plain(request: &Request, file: &Path) -> Answer {
    let bytes = std::fs::read(file).expect("a sector file");
    let octets = "application/octet-stream";
    let Some(range) = request.header("range") else { return Answer::with(200, octets, bytes) };
    let ends = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((Ok(first), Ok(last))) =
        ends.map(|(first, last)| (first.parse::<usize>(), last.parse::<usize>()))
    else {
        return Answer::status(416);
    };
    let last = last.min(bytes.len() - 1);
    if first > last {
        return Answer::status(416);
    }
    let mut answer = Answer::with(206, octets, bytes[first..=last].to_vec());
    answer.headers.push(("Content-Range".to_owned(), format!("bytes {first}-{last}/{}", bytes.len())));
    answer
}
