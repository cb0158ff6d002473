//! Has the holders of a sector prove their copies: Lotus's `/vanilla/single`, which Lotus workers answer as well. Never:
//! fetches a sector's file, or holds a lock.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use sealtasks::{FailureClass, FetchVerb, FileType, SectorRef, SectorStorageInfo, StorageId, VanillaInput};

use super::Remote;
use crate::error::StoreError;
use crate::local::chain;
use crate::peer::Peer;
use crate::serve::vanilla::{FAILURE_HEADER, NO_PROVER, PATH_AWAY};
use crate::wire::{ChallengeJson, CidJson, SingleJson};

/// How long one proof may take: Lotus's `SingleCheckTimeout`.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a holder says of its files is shown up to so many characters.
const SHOWN_MAX: usize = 2000;
/// Window PoSt of version 1.1 of 2 KiB; the numbers of the other sizes follow.
const WINDOW: i64 = 10;

/// Said of files that nobody has both of. No fault: each of them may be as it should be.
const APART: &str = "its sealed file and its cache lie on different hosts, so that none can prove it; bring them together \
    with `sealyard storage move`";

/// A copy of a sector's files: replica and cache on one host, which proves them where they lie; or what is known of both where
/// no host that answers has both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenCopy {
    /// The path of its replica.
    pub sealed: StorageId,
    /// The path of its cache.
    pub cache: StorageId,
    /// The base URL of the host; empty: none was asked.
    pub url: String,
    /// What came of it.
    pub outcome: CopyOutcome,
}

/// What came of proving a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It can be proven.
    Proven,
    /// Its files are at fault.
    Faulty(String),
    /// Its host was not reached, or has not got the path now.
    Away(String),
    /// Its host could not tell, or no host has both files.
    Untold(String),
}

impl Remote {
    /// Has each host that has both files of a sector prove them, one after another. The list is empty where the index does
    /// not know both files anywhere.
    ///
    /// # Errors
    /// The index does not answer.
    pub async fn prove_copies(
        &self,
        sector: SectorRef,
        input: &VanillaInput,
    ) -> Result<Vec<ProvenCopy>, StoreError> {
        let replicas = self.index.find(sector.id, FileType::Sealed.into(), None).await?;
        let caches = self.index.find(sector.id, FileType::Cache.into(), None).await?;
        let mut asked = BTreeSet::new();
        let mut copies = Vec::new();
        for cache in &caches {
            let beside = |url: &&String| replicas.iter().any(|replica| replica.base_urls.contains(url));
            for url in cache.base_urls.iter().filter(beside) {
                // Several paths of one host: it proves what it finds first.
                if !asked.insert(url) {
                    continue;
                }
                let replica = replicas.iter().find(|replica| replica.base_urls.contains(url));
                let Some(replica) = replica else { continue };
                let outcome = match self.proven_at((&cache.id, url), sector, input).await {
                    CopyOutcome::Untold(why) => self.untold_at([&replica.id, &cache.id], url, why).await,
                    outcome => outcome,
                };
                let reached = !matches!(outcome, CopyOutcome::Away(_));
                let (sealed, cache, url) = (replica.id.clone(), cache.id.clone(), url.clone());
                copies.push(ProvenCopy { sealed, cache, url, outcome });
                // Its other URLs lead to the same files.
                if reached {
                    break;
                }
            }
        }
        let is_silent = |holder: &SectorStorageInfo| holder.base_urls.is_empty();
        if copies.is_empty() || replicas.iter().chain(&caches).any(is_silent) {
            copies.extend(self.unproven(&replicas, &caches).await);
        }
        Ok(copies)
    }

    /// What is to be said of files that no host was asked to prove, since none of those that answer has both.
    async fn unproven(
        &self,
        replicas: &[SectorStorageInfo],
        caches: &[SectorStorageInfo],
    ) -> Option<ProvenCopy> {
        let mut copy = ProvenCopy {
            sealed: replicas.first()?.id.clone(),
            cache: caches.first()?.id.clone(),
            url: String::new(),
            outcome: CopyOutcome::Untold(APART.to_owned()),
        };
        for holder in replicas.iter().chain(caches) {
            let Some(why) = self.away(holder).await else { continue };
            let is_of = |holders: &[SectorStorageInfo]| holders.iter().any(|one| one.id == holder.id);
            if is_of(replicas) {
                copy.sealed = holder.id.clone();
            }
            if is_of(caches) {
                copy.cache = holder.id.clone();
            }
            copy.outcome = CopyOutcome::Away(format!("storage path {}: {why}", holder.id));
            break;
        }
        Some(copy)
    }

    /// Why nobody serves a path now.
    async fn away(&self, holder: &SectorStorageInfo) -> Option<String> {
        let mut last = "its host has not answered for long".to_owned();
        for base in &holder.base_urls {
            last = self.failure_of(&holder.id, base).await?;
        }
        Some(last)
    }

    async fn proven_at(
        &self,
        (path, base): (&StorageId, &str),
        sector: SectorRef,
        input: &VanillaInput,
    ) -> CopyOutcome {
        let url = format!("{base}/vanilla/single");
        let Some(size) = WINDOW.checked_add(sector.proof.number() % 5) else {
            return CopyOutcome::Untold(format!("{} has no PoSt proof", sector.proof));
        };
        let request = SingleJson {
            miner: sector.id.miner.get(),
            sector: ChallengeJson {
                seal_proof: sector.proof.number(),
                sector_number: sector.id.number.get(),
                sealed: CidJson { text: input.sealed.to_string() },
                challenge: Some(input.challenges.clone()),
                update: false,
            },
            proof_type: size,
        };
        let sent = async {
            let body = serde_json::to_vec(&request)
                .map_err(|error| StoreError::Transport { url: url.clone(), source: error.into() })?;
            let token = self.token_for((path, base), (sector.id, FileType::Cache), FetchVerb::Get).await?;
            let answer =
                self.fetcher.peer.ask_with((Method::POST, &url), &token, None, Bytes::from(body), PATIENCE);
            answer.await
        };
        let answer = match sent.await {
            Ok(answer) => answer,
            Err(error @ StoreError::Transport { .. }) => return CopyOutcome::Away(chain(&error)),
            Err(error) => return CopyOutcome::Untold(chain(&error)),
        };
        let status = answer.status();
        if status == StatusCode::OK {
            return CopyOutcome::Proven;
        }
        let class = answer.headers().get(FAILURE_HEADER).map(|class| class.as_bytes().to_owned());
        let said = Peer::small_body(&url, answer).await.unwrap_or_default();
        let text: String = String::from_utf8_lossy(&said).trim().chars().take(SHOWN_MAX).collect();
        if status != StatusCode::INTERNAL_SERVER_ERROR {
            return CopyOutcome::Untold(format!("{url} answered {status}: {text}"));
        }
        match class.as_deref() {
            Some(PATH_AWAY) => CopyOutcome::Away(text),
            Some(class) if class == name(FailureClass::BadData).as_bytes() => CopyOutcome::Faulty(text),
            Some(_) => CopyOutcome::Untold(text),
            // A Lotus peer does not say whose fault it is.
            None if is_of_host(&text) => CopyOutcome::Untold(text),
            None => CopyOutcome::Faulty(text),
        }
    }

    /// A host that could not tell may just not have the path any more.
    async fn untold_at(&self, paths: [&StorageId; 2], url: &str, why: String) -> CopyOutcome {
        for path in paths {
            if let Some(away) = self.failure_of(path, url).await {
                return CopyOutcome::Away(format!("storage path {path}: {away}"));
            }
        }
        CopyOutcome::Untold(why)
    }
}

/// Whether a failure that came without a class is about the host rather than the files. A file that the system does not find
/// may lie on a disk that is not mounted.
fn is_of_host(text: &str) -> bool {
    let host = ["acquire sector: ", "fsstat: ", "context ", "(os error ", "too many open files"];
    text == NO_PROVER || host.iter().any(|words| text.contains(words))
}

fn name(class: FailureClass) -> String {
    let value = serde_json::to_value(class).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
