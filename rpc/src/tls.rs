//! TLS by certificate files: what a server shows ([`Identity`]) and whom a client believes ([`Trust`]). Plain HTTP stays
//! the default; a peer whose URL says https or wss is never spoken to without TLS. Every refusal has a code, TLS01 to
//! TLS09 for files and TLS11 to TLS15 for what a peer shows. Never makes certificates, and asks clients for none: tokens
//! say who they are.

mod identity;
mod trust;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

pub use identity::Identity;
pub use trust::{PeerCertificateError, Trust};

/// Longest certificate, key or CA file that is read (bytes); the largest CA bundle in use has about 250 KiB.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Two implementations are compiled in, by others' wishes; this is the one that we use, whoever came first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "larger than 4 MiB")));
    }
    Ok(bytes)
}

/// All certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let no_certificate = |detail: String| TlsError::NoCertificate { path: path.to_owned(), detail };
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| no_certificate(format!("it is no PEM ({error})")))?;
    if found.is_empty() {
        return Err(no_certificate("it has no section \"BEGIN CERTIFICATE\"".to_owned()));
    }
    Ok(found)
}

/// A number of seconds, roughly, for people.
fn roughly(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// What the library says of a certificate, when it is none of the cases with words of their own.
fn other(error: &CertificateError) -> String {
    let text = error.to_string();
    if text.contains("CaUsedAsEndEntity") {
        return "it is a certificate authority's (CA:TRUE), and a server's must not be".to_owned();
    }
    text
}

/// Files from which no TLS can be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not readable.
    #[error("TLS01: {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No certificate in it.
    #[error(
        "TLS02: {} holds no certificate: {detail}; expected PEM, the server's own certificate first, then those that \
         vouch for it",
        .path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// No private key in it. Never repeats its text.
    #[error(
        "TLS03: {} holds no usable private key: {detail}; expected PEM without a passphrase, \"BEGIN PRIVATE KEY\" or \
         its older forms",
        .path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: &'static str,
    },
    /// Everyone can read the key.
    #[error(
        "TLS04: {} has mode {mode:04o}: everyone on this machine can read the private key; run chmod 0600 on it",
        .path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Certificate and key are not of one pair.
    #[error(
        "TLS05: the private key in {} does not match the certificate in {}; give the two that were made together",
        .key.display(), .certificate.display()
    )]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// Its time is over.
    #[error("TLS06: the certificate in {} expired {ago} ago; renew it", .path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// Since when, roughly.
        ago: String,
    },
    /// Its time has not come.
    #[error("TLS07: the certificate in {} is not valid for another {ahead}; is the clock right?", .path.display())]
    NotYet {
        /// The certificate file.
        path: PathBuf,
        /// Until when, roughly.
        ahead: String,
    },
    /// It does not name the address that peers are told.
    #[error(
        "TLS08: the certificate in {} does not name {name}, which is what peers are told to connect to; it names \
         {names}",
        .path.display()
    )]
    Name {
        /// The certificate file.
        path: PathBuf,
        /// The host.
        name: String,
        /// What it names.
        names: String,
    },
    /// It can be no server's.
    #[error("TLS09: the certificate in {} cannot be shown by a server: {detail}", .path.display())]
    Unfit {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}
