//! Which certificate files are meant: flags beat the environment, and both beat `config.toml`. What the files are worth
//! is for [`rpc::tls`] to say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rpc::multiaddr::Multiaddr;
use rpc::tls::{Identity, TlsError, Trust};

use crate::args::TlsArgs;
use crate::connect::expand;
use crate::exit::{Code, Failure};

/// Names the authorities' file for every command, as `MINER_API_INFO` names the manager.
const CA_FILE: &str = "SEALYARD_CA_FILE";

/// The files of a manager or a worker.
pub struct Files {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl Files {
    /// Those named by flags or environment, else those that the `config.toml` in `repo` names.
    pub fn of_manager(args: &TlsArgs, config: &manager::Config, repo: &Path) -> Result<Self, Failure> {
        let configured = [&config.certificate, &config.private_key, &config.ca_file];
        Self::of(args, configured.map(Option::as_deref), repo)
    }

    /// As [`Files::of_manager`]; a new worker's repo says nothing.
    pub fn of_worker(args: &TlsArgs, repo: Option<&worker::Repo>) -> Result<Self, Failure> {
        match repo {
            Some(repo) => {
                let config = repo.config();
                let configured = [&config.certificate, &config.private_key, &config.ca_file];
                Self::of(args, configured.map(Option::as_deref), repo.dir())
            }
            None => Self::of(args, [None; 3], Path::new("")),
        }
    }

    fn of(args: &TlsArgs, configured: [Option<&Path>; 3], repo: &Path) -> Result<Self, Failure> {
        let [certificate, key, authorities] = configured;
        let file = |given: &Option<String>, configured: Option<&Path>| match given {
            Some(given) if !given.is_empty() => expand(given).map(Some),
            _ => Ok(configured.map(|path| repo.join(path))),
        };
        let files = Self {
            certificate: file(&args.tls_cert, certificate)?,
            key: file(&args.tls_key, key)?,
            authorities: file(&args.ca_file, authorities)?,
        };
        if files.certificate.is_some() == files.key.is_some() {
            return Ok(files);
        }
        let (given, missing) = if files.key.is_none() {
            ("a certificate", "its private key")
        } else {
            ("a private key", "its certificate")
        };
        Err(Failure::new(Code::Setting, format!("{given} is named without {missing}"))
            .advise("name both, with --tls-cert and --tls-key or in config.toml"))
    }

    /// What is shown to peers, who are told to connect to `authority` (HOST:PORT); `None` for plain HTTP.
    pub fn identity(&self, authority: &str) -> Result<Option<Identity>, Failure> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return Ok(None) };
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        Identity::load(certificate, key, host).map(Some).map_err(unusable)
    }

    /// Whether TLS is served.
    pub const fn serves_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// Whom to believe.
    pub fn trust(&self) -> Result<Trust, Failure> {
        self.authorities.as_deref().map_or_else(|| Ok(Trust::system()), trust_file)
    }
}

/// Whom a command believes: the environment's file, else the one that `configured` finds in a `config.toml`.
pub fn trust(configured: impl FnOnce() -> Option<PathBuf>) -> Result<Trust, Failure> {
    let named = std::env::var(CA_FILE).ok().filter(|file| !file.is_empty());
    let file = named.map(|file| expand(&file)).transpose()?.or_else(configured);
    file.as_deref().map_or_else(|| Ok(Trust::system()), trust_file)
}

/// The authorities' file that a manager's repo names. What is wrong with its `config.toml` is the manager's to say.
pub fn managers_authorities(repo: &Path) -> Option<PathBuf> {
    Some(repo.join(manager::Config::read(repo).ok()?.ca_file?))
}

/// The same for a worker's repo.
pub fn workers_authorities(repo: &Path) -> Option<PathBuf> {
    Some(repo.join(worker::Config::read(&repo.join("config.toml")).ok()?.ca_file?))
}

fn trust_file(file: &Path) -> Result<Trust, Failure> {
    Trust::with_file(file).map_err(unusable)
}

fn unusable(error: TlsError) -> Failure {
    let failure = Failure::from_error(Code::Setting, &error);
    match error {
        TlsError::Name { .. } => failure.advise(
            "get a certificate for it, or name another address with --advertise (`run`) or --address (`worker run`)",
        ),
        _ => failure,
    }
}

/// `https` or `http`.
pub const fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// The multiaddr of an `HOST:PORT` that speaks HTTP, with or without TLS; names become `/dns/…`.
pub fn multiaddr(authority: &str, tls: bool) -> String {
    let tail = scheme(tls);
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return format!("{}/{tail}", Multiaddr::tcp(address));
    }
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "2345"));
    format!("/dns/{host}/tcp/{port}/{tail}")
}
