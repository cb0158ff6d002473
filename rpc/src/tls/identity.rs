//! A server's certificate and key, checked before anything is served and read again when their files change. New files
//! that cannot be used leave the old ones in force.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};

use super::{TlsError, certificates, other, provider, read, roughly};

/// What a server shows. Clones share it.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files: Files,
    shown: RwLock<Arc<CertifiedKey>>,
    /// The files as they were when they were last read, used or not.
    seen: Mutex<[Stamp; 2]>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// The host that peers are told.
    name: String,
}

/// Tells one state of a file from another: length, inode, time of change.
type Stamp = (u64, u64, i64, i64);

impl Identity {
    /// Reads a PEM file with the certificate and its chain, and one with the private key. `host` is the name or address
    /// under which peers are told to connect.
    ///
    /// # Errors
    /// See [`TlsError`]: whatever a peer would refuse is refused here, but for who signed it, which only a peer can judge.
    pub fn load(certificate: &Path, key: &Path, host: &str) -> Result<Self, TlsError> {
        let name = host.trim_matches(['[', ']']).to_owned();
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned(), name };
        // Before they are read: what changes meanwhile is read again.
        let seen = Mutex::new(files.stamps()?);
        let shown = RwLock::new(Arc::new(files.load()?));
        Ok(Self(Arc::new(Shared { files, shown, seen })))
    }

    /// Reads the files again if they have changed since; true when new ones are in force from now on.
    ///
    /// # Errors
    /// The new files cannot be used; what was shown before is shown still. Said once for each change.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        // Held until the files are read: whoever comes second finds what the first one made of them in force.
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.files.stamps()?;
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let fresh = Arc::new(self.0.files.load()?);
        *self.0.shown.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    /// What a TLS listener is made of.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("this provider has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(self.clone())));
        Arc::new(config)
    }
}

/// Whatever name is asked for: there is one certificate.
#[derive(Debug)]
struct Shown(Identity);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0.shown.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Files {
    fn stamps(&self) -> Result<[Stamp; 2], TlsError> {
        let stamp = |path: &Path| {
            let stamp = |found: Metadata| (found.len(), found.ino(), found.mtime(), found.mtime_nsec());
            let found = std::fs::metadata(path);
            found.map(stamp).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Ok([stamp(&self.certificate)?, stamp(&self.key)?])
    }

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        let pair = CertifiedKey::from_der(chain, private_key(&self.key)?, &provider());
        let pair = pair.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(error) => {
                TlsError::Unfit { path: self.certificate.clone(), detail: other(&error) }
            }
            _ => TlsError::NoKey { path: self.key.clone(), detail: "its kind is not supported" },
        })?;
        self.check(&pair).map_err(|error| self.told(error))?;
        Ok(pair)
    }

    /// What every client will look at, as far as it can be known here.
    fn check(&self, pair: &CertifiedKey) -> Result<(), rustls::Error> {
        let certificate = ParsedCertificate::try_from(pair.end_entity_cert()?)?;
        let (nobody, now) = (RootCertStore::empty(), UnixTime::now());
        let algorithms = provider().signature_verification_algorithms.all;
        // Time and purpose are looked at before the signer, whom nobody vouches for here.
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &nobody,
            &pair.cert[1..],
            now,
            algorithms,
        ) {
            Ok(()) | Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
            Err(error) => return Err(error),
        }
        let name = ServerName::try_from(self.name.as_str())
            .map_err(|_| rustls::Error::General(format!("{:?} is no host name", self.name)))?;
        verify_server_name(&certificate, &name)
    }

    fn told(&self, error: rustls::Error) -> TlsError {
        let path = self.certificate.clone();
        let error = match error {
            rustls::Error::InvalidCertificate(error) => error,
            error => return TlsError::Unfit { path, detail: error.to_string() },
        };
        match error {
            CertificateError::ExpiredContext { time, not_after } => TlsError::Expired {
                path,
                ago: roughly(Duration::from_secs(time.as_secs().saturating_sub(not_after.as_secs()))),
            },
            CertificateError::NotValidYetContext { time, not_before } => TlsError::NotYet {
                path,
                ahead: roughly(Duration::from_secs(not_before.as_secs().saturating_sub(time.as_secs()))),
            },
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = if presented.is_empty() { "nobody".to_owned() } else { presented.join(", ") };
                TlsError::Name { path, name: self.name.clone(), names }
            }
            error => TlsError::Unfit { path, detail: other(&error) },
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let found = std::fs::metadata(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let mode = found.permissions().mode() & 0o777;
    // A group of its own for keys is common; the whole machine is not.
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let sealed = bytes.windows(9).any(|text| text == b"ENCRYPTED");
        let detail = if sealed { "it has a passphrase" } else { "it has no section with one" };
        TlsError::NoKey { path: path.to_owned(), detail }
    })
}
