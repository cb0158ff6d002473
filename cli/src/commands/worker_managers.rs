//! The managers that `worker run` was told of, and what is said of them. Which of them is served is for [`worker::Managers`].

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rpc::api_info::{ApiInfo, Transport};
use rpc::client::ManagerClient;
use rpc::{ManagerApi, Mark, Trust};
use uuid::Uuid;
use worker::{Candidate, MANAGERS_MAX, ManagerFacts, Managers, Status, StatusSink};

use super::worker_failure::worker_failure;
use crate::connect::api_infos;
use crate::exit::{Code, Failure};
use crate::show::talk;

/// The manager, and how to speak to it.
pub struct Door {
    /// Speaks to the one that is served.
    pub client: Arc<ManagerClient>,
    /// Says which one that is.
    pub managers: Arc<Managers>,
    /// The token of the first; a manager that takes over has the same secret and knows the same tokens.
    pub token: String,
    /// The token's id, when it is a worker's own.
    pub worker_token: Option<Uuid>,
    /// Says what becomes of the registration.
    pub status: StatusSink,
    infos: Vec<ApiInfo>,
    urls: Arc<Vec<String>>,
}

impl Door {
    /// The managers of the environment and of `more`, else the one whose repo is on this host.
    pub fn find(manager_repo: &Path, more: &[String], trust: &Trust) -> Result<Self, Failure> {
        let infos = api_infos(manager_repo, more)?;
        if infos.len() > MANAGERS_MAX {
            let text = format!("{} managers are named; at most {MANAGERS_MAX} can be", infos.len());
            return Err(
                Failure::new(Code::Setting, text).advise("name the manager and those that may take over")
            );
        }
        let no_token = || {
            Failure::new(Code::Token, "there is no token for the manager").advise(
                "set MINER_API_INFO to what `sealyard auth api-info --perm worker` prints on its machine",
            )
        };
        let (Some(first), Some(token)) = (infos.first(), infos.iter().find_map(|info| info.token.clone()))
        else {
            return Err(no_token());
        };
        let setting = |error: rpc::api_info::ApiInfoError| Failure::from_error(Code::Setting, &error);
        let unusable = |error: rpc::client::ClientError| Failure::from_error(Code::Setting, &error);
        let urls: Vec<String> = infos
            .iter()
            .map(|info| info.rpc_url(Transport::Http).map(|url| url.to_string()).map_err(setting))
            .collect::<Result<_, _>>()?;
        let mark = Mark::default();
        let client = ManagerClient::among(first, &infos[1..], Transport::Http, trust, &mark);
        let (client, urls) = (Arc::new(client.map_err(unusable)?), Arc::new(urls));
        let status = status_sink(Arc::clone(&client), Arc::clone(&urls));
        let mut candidates = Vec::new();
        for (info, url) in infos.iter().zip(urls.iter()) {
            let alone = ManagerClient::among(info, &[], Transport::Http, trust, &mark).map_err(unusable)?;
            let token = info.token.clone().unwrap_or_else(|| token.clone());
            let api = Arc::new(alone) as Arc<dyn ManagerApi>;
            candidates.push(Candidate { url: url.clone(), token, api });
        }
        let led = Arc::clone(&client);
        let managers = Managers::new(candidates, mark, move |number| led.choose(number), Arc::clone(&status));
        let managers = Arc::new(managers);
        Ok(Self { client, managers, token, worker_token: None, status, infos, urls })
    }

    /// Waits for the manager, saying so, until it is known who it is and that this worker may serve it.
    pub async fn check(&mut self, timeout: Duration) -> Result<ManagerFacts, Failure> {
        let Ok(found) = tokio::time::timeout(timeout, self.managers.find()).await else {
            let text = format!("the manager at {} did not answer for {} s", self.url(), timeout.as_secs());
            return Err(Failure::new(Code::Unreachable, text)
                .advise("start it with `sealyard run`, or correct MINER_API_INFO"));
        };
        let facts = found.map_err(worker_failure)?;
        self.worker_token = facts.worker_token;
        Ok(facts)
    }

    /// Looks for the manager at the other places, too, as long as this process lives.
    pub fn attend(&self) {
        if self.managers.are_several() {
            let managers = Arc::clone(&self.managers);
            tokio::spawn(async move { managers.attend().await });
        }
    }

    /// Where the one that is served is.
    pub fn url(&self) -> String {
        self.urls.get(self.client.chosen()).cloned().unwrap_or_default()
    }

    /// The same, to be dialled.
    pub fn info(&self) -> &ApiInfo {
        // There is one at least, and the client was made of the same.
        &self.infos[self.client.chosen().min(self.infos.len() - 1)]
    }
}

/// Says what becomes of the registration; the same thing is said once.
fn status_sink(client: Arc<ManagerClient>, urls: Arc<Vec<String>>) -> StatusSink {
    let said = Mutex::new(None::<String>);
    Arc::new(move |status| {
        let here = urls.get(client.chosen()).map(String::as_str).unwrap_or_default();
        let text = match status {
            Status::Waiting { url, reason } => format!("waiting for the manager at {url}: {reason}"),
            Status::PassedOver { url, reason } => format!("warning: {url} is passed over: {reason}"),
            Status::WaitingForCalls { calls } => {
                format!("waiting until {calls} calls have ended before joining")
            }
            Status::Registered => format!("registered with the manager at {here}"),
            Status::Lost { reason } => format!("the manager at {here} is lost, trying again: {reason}"),
        };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != Some(&text) {
            talk!("{text}");
            *said = Some(text);
        }
    })
}
