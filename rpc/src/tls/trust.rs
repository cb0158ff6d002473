//! Whom a client believes: the machine's certificate authorities, and those of one file besides. Read once, when the
//! process starts; a changed file holds from the next start on.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{TlsError, certificates, other, provider, roughly};

/// What clients check a server's certificate with. Clones share it.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The machine's authorities. A machine that has none believes nobody, which only https and wss notice.
    pub fn system() -> Self {
        static SYSTEM: OnceLock<Trust> = OnceLock::new();
        SYSTEM.get_or_init(|| Self::of(machine_roots())).clone()
    }

    /// The machine's authorities and those in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or one of its certificates cannot be an authority's.
    pub fn with_file(path: &Path) -> Result<Self, TlsError> {
        let mut roots = machine_roots();
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| TlsError::NoCertificate {
                path: path.to_owned(),
                detail: format!("one of them cannot be an authority's ({error})"),
            })?;
        }
        Ok(Self::of(roots))
    }

    /// For clients that speak TLS themselves. Offers no protocols (ALPN): ours is HTTP/1.1.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    fn of(roots: RootCertStore) -> Self {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("this provider has TLS 1.2 and 1.3")
            // As the library's own verifier, but that its refusals say what to do.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { roots, algorithms }))
            .with_no_client_auth();
        Self(Arc::new(config))
    }
}

fn machine_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate authority of this machine is left out");
    }
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(known = roots.len(), unusable, "certificate authorities of this machine");
    roots
}

#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(own)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .and_then(|()| verify_server_name(&certificate, name))
        .map_err(|error| match error {
            Error::InvalidCertificate(error) => {
                Error::Other(rustls::OtherError(Arc::new(PeerCertificateError::of(&error, name))))
            }
            error => error,
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate that a peer showed and that is not believed. Nothing was sent to the peer, no token either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerCertificateError {
    /// Its time is over.
    #[error("TLS11: the certificate of {name} expired {ago} ago; renew it there")]
    Expired {
        /// The peer.
        name: String,
        /// Since when, roughly.
        ago: String,
    },
    /// Its time has not come.
    #[error(
        "TLS12: the certificate of {name} is not valid for another {ahead}; is a clock wrong, there or here?"
    )]
    NotYet {
        /// The peer.
        name: String,
        /// Until when, roughly.
        ahead: String,
    },
    /// It is somebody else's.
    #[error(
        "TLS13: what answers for {name} shows a certificate for {names}; use one of those in the address, or give it one that names {name}"
    )]
    Name {
        /// The peer.
        name: String,
        /// What it names.
        names: String,
    },
    /// Nobody whom we know has signed it.
    #[error(
        "TLS14: the certificate of {name} is signed by nobody whom this machine knows; name the authority's file with \
         --ca-file or SEALYARD_CA_FILE"
    )]
    Issuer {
        /// The peer.
        name: String,
    },
    /// Anything else.
    #[error("TLS15: the certificate of {name} is refused: {detail}")]
    Other {
        /// The peer.
        name: String,
        /// Why.
        detail: String,
    },
}

impl PeerCertificateError {
    fn of(error: &CertificateError, name: &ServerName<'_>) -> Self {
        let name = name.to_str().into_owned();
        match error {
            CertificateError::ExpiredContext { time, not_after } => {
                let ago = Duration::from_secs(time.as_secs().saturating_sub(not_after.as_secs()));
                Self::Expired { name, ago: roughly(ago) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                let ahead = Duration::from_secs(not_before.as_secs().saturating_sub(time.as_secs()));
                Self::NotYet { name, ahead: roughly(ahead) }
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = if presented.is_empty() { "nobody".to_owned() } else { presented.join(", ") };
                Self::Name { name, names }
            }
            // The latter: an authority of the same name, as self-made ones often are.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Issuer { name },
            error => Self::Other { name, detail: other(error) },
        }
    }
}
