//! One path as the index keeps it: what was attached, how full and alive it is, and which of its URLs answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sealtasks::{FileTypes, FsStat, HealthReport, SectorId, SectorStorageInfo, StorageInfo};

use super::held::Held;
use super::{HEARTBEAT_STALE_MS, PathView, SilentUrl, URL_DEAD_MS, UrlTrouble};

pub(super) struct PathSlot {
    pub(super) info: StorageInfo,
    pub(super) stat: FsStat,
    heartbeat_ms: u64,
    error: Option<String>,
    /// Attached since the index was made, and not only remembered by a snapshot.
    pub(super) confirmed: bool,
    /// When its owner last declared something of what lies there; `None` = all of it is declared.
    declaring_since_ms: Option<u64>,
    /// URLs that failed when they were last asked.
    failing: BTreeMap<String, Failing>,
}

struct Failing {
    since_ms: u64,
    tried_ms: u64,
    why: String,
}

impl Failing {
    fn set_aside(&self) -> bool {
        self.tried_ms.saturating_sub(self.since_ms) >= URL_DEAD_MS
    }
}

impl PathSlot {
    pub(super) fn new(info: StorageInfo, stat: FsStat, now: u64) -> Self {
        Self {
            info,
            stat,
            heartbeat_ms: now,
            error: None,
            confirmed: true,
            declaring_since_ms: Some(now),
            failing: BTreeMap::new(),
        }
    }

    /// A path of a snapshot: known, and offered for nothing.
    pub(super) fn remembered(info: StorageInfo, stat: FsStat) -> Self {
        Self { confirmed: false, ..Self::new(info, stat, 0) }
    }

    /// URLs are joined, settings overwritten, health kept; of a remembered path only its files are kept, and since when URLs have
    /// not answered: those who serve them attach them all after a restart of the manager, also what nobody reaches. Such a URL is
    /// offered until it is asked.
    pub(super) fn attach_again(&mut self, info: StorageInfo, stat: FsStat, now: u64) {
        if !self.confirmed {
            let failing = std::mem::take(&mut self.failing).into_iter();
            let failing = failing.filter(|(url, _)| info.urls.contains(url));
            let failing = failing.map(|(url, it)| (url, Failing { tried_ms: it.since_ms, ..it })).collect();
            *self = Self { failing, ..Self::new(info, stat, now) };
            return;
        }
        let mut urls = std::mem::take(&mut self.info.urls);
        urls.extend(info.urls.iter().filter(|url| !urls.contains(url)).cloned().collect::<Vec<_>>());
        // Whoever attaches a path at a URL has just begun to serve it there.
        self.failing.retain(|url, _| !info.urls.contains(url));
        self.info = StorageInfo { urls, ..info };
        self.declaring_since_ms = Some(now);
    }

    /// Its owner declares on.
    pub(super) fn declares_on(&mut self, now: u64) {
        self.declaring_since_ms = self.declaring_since_ms.map(|_| now);
    }

    /// Its owner has said that nothing lies there but what was declared.
    pub(super) fn declared_all(&mut self) {
        self.declaring_since_ms = None;
    }

    pub(super) fn remove_url(&mut self, position: usize) {
        let url = self.info.urls.remove(position);
        self.failing.remove(&url);
    }

    /// Whether anything is other than it was, but for the time.
    pub(super) fn report(&mut self, report: HealthReport, now: u64) -> bool {
        let error = report.error.filter(|text| !text.is_empty());
        let was_fresh = now <= self.fresh_until();
        let is_same = self.stat == report.stat && self.error == error && (was_fresh || error.is_some());
        (self.stat, self.error, self.heartbeat_ms) = (report.stat, error, now);
        !is_same
    }

    /// A URL was asked: it answered, or did not for this reason. Whether it now counts as another than before.
    pub(super) fn url_asked(&mut self, url: &str, failure: Option<String>, now: u64) -> bool {
        if !self.info.urls.iter().any(|known| known == url) {
            return false;
        }
        let Some(why) = failure else { return self.failing.remove(url).is_some() };
        let before = self.failing.get(url).map(|failing| (failing.since_ms, failing.set_aside()));
        let since_ms = before.map_or(now, |(since_ms, _)| since_ms);
        let failing = Failing { since_ms, tried_ms: now, why };
        let changed = before.map(|(_, aside)| aside) != Some(failing.set_aside());
        self.failing.insert(url.to_owned(), failing);
        changed
    }

    /// What an earlier life found of a URL, unless this one knows better.
    pub(super) fn remember_silent(&mut self, silent: &SilentUrl) {
        let SilentUrl { url, since_ms, tried_ms } = silent;
        if !self.confirmed && self.info.urls.contains(url) {
            let why = "it did not answer an earlier life of the manager".to_owned();
            let failing = Failing { since_ms: *since_ms, tried_ms: *tried_ms, why };
            self.failing.entry(url.clone()).or_insert(failing);
        }
    }

    pub(super) fn silent_urls(&self) -> Vec<SilentUrl> {
        let silent = |(url, failing): (&String, &Failing)| SilentUrl {
            url: url.clone(),
            since_ms: failing.since_ms,
            tried_ms: failing.tried_ms,
        };
        self.failing.iter().map(silent).collect()
    }

    pub(super) fn troubles(&self) -> impl Iterator<Item = UrlTrouble> + '_ {
        self.failing.iter().map(|(url, failing)| UrlTrouble {
            id: self.info.id.clone(),
            url: url.clone(),
            since_ms: failing.since_ms,
            tried_ms: failing.tried_ms,
            why: failing.why.clone(),
            set_aside: failing.set_aside(),
        })
    }

    pub(super) fn view(&self, now: u64, sectors: usize) -> PathView {
        PathView {
            info: self.info.clone(),
            stat: self.stat,
            heartbeat_age_ms: now.saturating_sub(self.heartbeat_ms),
            error: self.error.clone(),
            healthy: now <= self.fresh_until(),
            sectors,
            confirmed: self.confirmed,
            declaring_ms: self.declaring_since_ms.map(|since| now.saturating_sub(since)),
            troubles: self.troubles().collect(),
        }
    }

    /// The last millisecond at which it may be offered for new files; 0 = not at all.
    pub(super) fn fresh_until(&self) -> u64 {
        match self.error {
            None if self.confirmed => self.heartbeat_ms.saturating_add(HEARTBEAT_STALE_MS),
            _ => 0,
        }
    }

    pub(super) fn takes_new(&self, now: u64, need: u64) -> bool {
        self.info.stanza.weight > 0 && now <= self.fresh_until() && self.available() >= need
    }

    /// A negative figure from a peer counts as nothing.
    pub(super) fn available(&self) -> u64 {
        u64::try_from(self.stat.available).unwrap_or(0)
    }

    pub(super) fn score(&self) -> u128 {
        u128::from(self.available()) * u128::from(self.info.stanza.weight)
    }

    /// The files of `types` that lie here. What only a snapshot knows weighs nothing and is no primary copy, so that
    /// nobody deletes another one on its account.
    pub(super) fn holder(&self, held: Held, sector: SectorId, types: FileTypes) -> Option<SectorStorageInfo> {
        let (sure, any) = (held.types().intersection(types), held.any().intersection(types));
        if any.is_empty() {
            return None;
        }
        Some(SectorStorageInfo {
            weight: self.info.stanza.weight.saturating_mul(sure.len() as u64),
            primary: !held.primary().intersection(types).is_empty(),
            ..self.place(sector, any)
        })
    }

    /// This path as a place for `types` of `sector`; weight 0 and not primary until a holder says otherwise.
    pub(super) fn place(&self, sector: SectorId, types: FileTypes) -> SectorStorageInfo {
        let stanza = &self.info.stanza;
        let alive = |url: &&String| {
            self.failing.is_empty() || !self.failing.get(*url).is_some_and(Failing::set_aside)
        };
        let base_urls: Vec<String> = self.info.urls.iter().filter(alive).cloned().collect();
        let mut urls = Vec::with_capacity(base_urls.len() * types.len());
        for base in &base_urls {
            for kind in types.iter() {
                let base = base.trim_end_matches('/');
                let mut url = String::with_capacity(base.len() + 48);
                // Writing to a string cannot fail.
                let _ = write!(url, "{base}/{}/{sector}", kind.name());
                urls.push(url);
            }
        }
        SectorStorageInfo {
            id: self.info.id.clone(),
            urls,
            base_urls,
            weight: 0,
            can_seal: stanza.can_seal,
            can_store: stanza.can_store,
            primary: false,
            filters: stanza.filters.clone(),
        }
    }
}
