//! Finding the manager: `MINER_API_INFO`, else the `api` and `token` files of its repo on this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rpc::api_info::{ApiInfo, Transport};
use rpc::client::ManagerClient;
use rpc::{ApiError, ManagerApi, OperatorApi, PipelineApi, ProvingApi, StorageApi, UnsealApi};

use crate::exit::{Code, Failure, Outcome};
use crate::show::talk;
use crate::tls;

/// The variables that name a manager elsewhere; the second is Lotus's old name.
const VARIABLES: [&str; 2] = ["MINER_API_INFO", "STORAGE_API_INFO"];

/// A manager that can be asked.
pub struct Connection {
    /// It.
    pub manager: Arc<dyn ManagerApi>,
    /// The same, for what operators control.
    pub operator: Arc<dyn OperatorApi>,
    /// The same, for storage.
    pub storage: Arc<dyn StorageApi>,
    /// The same, for proving.
    pub proving: Arc<dyn ProvingApi>,
    /// The same, for unsealed data.
    pub unseal: Arc<dyn UnsealApi>,
    /// The same, for the pipeline.
    pub pipeline: Arc<dyn PipelineApi>,
    /// Where it is, and the token used.
    pub info: ApiInfo,
}

impl Connection {
    /// The manager that the environment names, else the one whose repo is on this host.
    ///
    /// # Errors
    /// No manager runs here, or what names it is malformed.
    pub fn discover(repo: &Path) -> Result<Self, Failure> {
        Self::to(repo, api_info(repo)?)
    }

    /// The manager whose repo this is.
    ///
    /// # Errors
    /// It does not run, or the repo cannot be read.
    pub fn from_repo(repo: &Path) -> Result<Self, Failure> {
        Self::to(repo, repo_api_info(repo)?)
    }

    fn to(repo: &Path, info: ApiInfo) -> Result<Self, Failure> {
        let trust = tls::trust(|| tls::managers_authorities(repo))?;
        let client = ManagerClient::trusting(&info, Transport::Http, &trust)
            .map_err(|error| Failure::from_error(Code::Setting, &error))?;
        let client = Arc::new(client);
        Ok(Self {
            manager: client.clone(),
            operator: client.clone(),
            storage: client.clone(),
            unseal: client.clone(),
            proving: client.clone(),
            pipeline: client,
            info,
        })
    }

    /// Prints that nothing which this manager tells of is real, where that is so.
    ///
    /// # Errors
    /// The manager does not answer, or nobody reads the output.
    pub async fn mark_rehearsal(&self) -> Outcome {
        let overview = self.manager.overview().await.map_err(rpc_failure)?;
        crate::show::mark_rehearsal(&overview)
    }
}

/// Where the manager is and the token to use there. The environment beats the repo, as with Lotus.
pub fn api_info(repo: &Path) -> Result<ApiInfo, Failure> {
    for variable in VARIABLES {
        if let Ok(text) = std::env::var(variable) {
            return text.parse().map_err(|error: rpc::api_info::ApiInfoError| {
                Failure::from_error(Code::Setting, &error).advise(format!("correct or unset {variable}"))
            });
        }
    }
    repo_api_info(repo)
}

/// Where the manager may be: each entry of the environment's list and of `more`; without both, of the repo on this host. An entry
/// that has no token of its own gets that of the one before.
///
/// # Errors
/// No entry can be understood, or no manager runs here.
pub fn api_infos(repo: &Path, more: &[String]) -> Result<Vec<ApiInfo>, Failure> {
    let named = VARIABLES.iter().find_map(|variable| std::env::var(variable).ok()).unwrap_or_default();
    let texts: Vec<&str> = named.split(',').chain(more.iter().map(String::as_str)).map(str::trim).collect();
    let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return Ok(vec![api_info(repo)?]);
    }
    let (mut infos, mut token, mut wrong) = (Vec::new(), None::<String>, None);
    for text in texts {
        match text.parse::<ApiInfo>() {
            Ok(info) => {
                token = info.token.or(token);
                infos.push(ApiInfo { token: token.clone(), address: info.address });
            }
            Err(error) => {
                let failure = Failure::from_error(Code::Setting, &error);
                let failure = failure.advise(format!("correct or unset {}, or --manager", VARIABLES[0]));
                talk!("warning: a manager is left out: {failure}");
                wrong = Some(failure);
            }
        }
    }
    match wrong {
        Some(failure) if infos.is_empty() => Err(failure),
        Some(_) | None => Ok(infos),
    }
}

/// Whether a manager's repo is here and nothing says where else the manager is, but it does not run.
pub fn awaits_manager(repo: &Path) -> bool {
    let named = VARIABLES.iter().any(|variable| std::env::var_os(variable).is_some());
    let made = rpc::keystore::path(repo).exists();
    !named && made && matches!(rpc::repo_files::read_api(repo), Ok(None))
}

fn repo_api_info(repo: &Path) -> Result<ApiInfo, Failure> {
    let unreadable = |error: rpc::repo_files::RepoFileError| Failure::from_error(Code::Repo, &error);
    let Some(address) = rpc::repo_files::read_api(repo).map_err(unreadable)? else {
        return Err(Failure::new(Code::Unreachable, format!("no manager runs in {}", repo.display())).advise(
            "start it with `sealyard run`, or set MINER_API_INFO to what `sealyard auth api-info --perm admin` prints \
             on the manager's machine",
        ));
    };
    let token = rpc::repo_files::read_token(repo).map_err(unreadable)?;
    let text = match token {
        Some(token) => format!("{token}:{address}"),
        None => address,
    };
    text.parse().map_err(|error: rpc::api_info::ApiInfoError| {
        Failure::from_error(Code::Repo, &error).advise(format!("{}/api is damaged", repo.display()))
    })
}

/// A failed call to the manager in words and with its exit code.
pub fn rpc_failure(error: ApiError) -> Failure {
    let code = match &error {
        ApiError::Unreachable { .. } => Code::Unreachable,
        ApiError::Unauthorized { .. } => Code::Token,
        ApiError::Remote { message, .. } if message.contains("missing permission") => Code::Token,
        ApiError::Remote { .. } | ApiError::Refused { .. } | ApiError::Malformed { .. } => Code::Failed,
    };
    let advice = match code {
        Code::Token if matches!(error, ApiError::Remote { .. }) => Some(
            "set MINER_API_INFO to what `sealyard auth api-info --perm admin` prints on the manager's machine",
        ),
        _ if error.is_method_not_found() => {
            Some("what answers there is no Sealyard manager: a worker, or a Lotus")
        }
        // Where a certificate is the reason, the error says so itself.
        Code::Unreachable if rpc::error::chain(&error).contains("TLS1") => None,
        Code::Unreachable => Some("is the manager running, and is its port open to this machine?"),
        _ => None,
    };
    let failure = Failure::from_error(code, &error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}

/// A path as given, made absolute, with a leading `~` replaced by the home directory. Executors run in directories of
/// their own, where a relative path would mean something else.
pub fn expand(path: &str) -> Result<PathBuf, Failure> {
    let Some(rest) = path.strip_prefix('~') else {
        return Ok(std::path::absolute(path)?);
    };
    if !(rest.is_empty() || rest.starts_with('/')) {
        return Err(Failure::new(
            Code::Usage,
            format!("{path}: only ~ alone is understood, not another user's home"),
        ));
    }
    let home = std::env::var_os("HOME")
        .ok_or_else(|| Failure::new(Code::Setting, format!("{path} needs HOME, which is not set")))?;
    Ok(PathBuf::from(home).join(rest.trim_start_matches('/')))
}
