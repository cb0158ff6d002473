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
use crate::serve::vanilla::{FAILURE_HEADER, NO_PROVER};
use crate::wire::{ChallengeJson, CidJson, SingleJson};

/// How long one proof may take: Lotus's `SingleCheckTimeout`.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a holder says of its files is shown up to so many characters.
const SHOWN_MAX: usize = 2000;
/// Window PoSt of version 1.1 of 2 KiB; the numbers of the other sizes follow.
const WINDOW: i64 = 10;

/// A copy of a sector's files that can be proven where it lies: replica and cache on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenCopy {
    /// The path of its replica.
    pub sealed: StorageId,
    /// The path of its cache.
    pub cache: StorageId,
    /// The base URL of the host.
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
    /// Its host was not reached.
    Away(String),
    /// Its host could not tell.
    Untold(String),
}

impl Remote {
    /// Has each host that has both files of a sector prove them, one after another. Without such a host the list is empty.
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
                let outcome = self.proven_at((&cache.id, url), sector, input).await;
                let reached = !matches!(outcome, CopyOutcome::Away(_));
                let (sealed, cache, url) = (replica.id.clone(), cache.id.clone(), url.clone());
                copies.push(ProvenCopy { sealed, cache, url, outcome });
                // Its other URLs lead to the same files.
                if reached {
                    break;
                }
            }
        }
        // Its URLs were set aside, since none of them has answered for long.
        let silent = |holder: &&SectorStorageInfo| holder.base_urls.is_empty();
        if replicas.iter().any(|holder| silent(&holder)) || caches.iter().any(|holder| silent(&holder)) {
            let replica = replicas.iter().find(silent).or(replicas.first());
            let cache = caches.iter().find(silent).or(caches.first());
            copies.extend(replica.zip(cache).map(|(replica, cache)| ProvenCopy {
                sealed: replica.id.clone(),
                cache: cache.id.clone(),
                url: String::new(),
                outcome: CopyOutcome::Away("its host has not answered for long".to_owned()),
            }));
        }
        Ok(copies)
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
        // A Lotus peer does not say whose fault it is; its miner takes every failure for a bad sector.
        let files = class.as_deref().is_none_or(|class| class == name(FailureClass::BadData).as_bytes())
            && text != NO_PROVER;
        match status {
            StatusCode::INTERNAL_SERVER_ERROR if files => CopyOutcome::Faulty(text),
            StatusCode::INTERNAL_SERVER_ERROR => CopyOutcome::Untold(text),
            status => CopyOutcome::Untold(format!("{url} answered {status}: {text}")),
        }
    }
}

fn name(class: FailureClass) -> String {
    let value = serde_json::to_value(class).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
