//! TLS to Postgres, with the meaning that libpq gives to `sslmode`.
//!
//! Promise: `verify-full` verifies the server's certificate against the system's roots or
//! `sslrootcert`. `prefer` and `require` encrypt without verification, as for every other client:
//! the certificates of managed servers and of Debian's default are not signed by a public root.
//! `allow` is refused, because it would first send the password in the clear. `verify-ca` also
//! checks the host name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::DatabaseError;

/// How the server's certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verification {
    /// Not at all: TLS only encrypts.
    Unverified,
    /// Against the roots of the operating system.
    SystemRoots,
    /// Against the certificates in this PEM file.
    RootFile(String),
}

/// A connector with this verification.
pub(super) fn connector(verification: &Verification) -> Result<MakeRustlsConnect, DatabaseError> {
    let wrong = |what: String| DatabaseError::Misconfigured(format!("TLS to the database: {what}"));
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let certificates = match verification {
        Verification::Unverified => {
            let any = Arc::new(AnyCertificate(provider));
            let builder = builder.dangerous().with_custom_certificate_verifier(any);
            return Ok(MakeRustlsConnect::new(builder.with_no_client_auth()));
        }
        Verification::SystemRoots => rustls_native_certs::load_native_certs().certs,
        Verification::RootFile(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(format!("sslrootcert {path}: {error}")))?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(wrong(
            "no root certificate was found; name a file with sslrootcert".to_owned(),
        ));
    }
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Accepts any certificate, but still verifies the server's signature of the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use r2d2::ManageConnection;
    use testkit::postgres::PostgresServer;
    use testkit::postgres_program::own;

    use super::super::postgres_pool::PostgresManager;
    use super::*;

    #[test]
    fn tls_encrypts_and_proves_what_it_is_asked_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key) = (file("cert.pem"), file("key.pem"));
        let made = std::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        for path in [folder.path(), certificate.as_ref(), key.as_ref()] {
            own(path);
        }
        let server = PostgresServer::start_with(&[
            "ssl=on",
            &format!("ssl_cert_file={certificate}"),
            &format!("ssl_key_file={key}"),
        ]);
        let url = |host: &str, options: &str| {
            let url = server.url().replace("127.0.0.1", host);
            format!("{url}?{options}")
        };
        let encrypted = |url: String| {
            let manager = PostgresManager::new(&url, Duration::from_secs(5)).unwrap();
            let row = manager.connect()?.client.query_one(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
                &[],
            )?;
            Ok::<bool, DatabaseError>(row.get(0))
        };
        assert_eq!(encrypted(url("127.0.0.1", "sslmode=disable")), Ok(false));
        assert_eq!(encrypted(url("127.0.0.1", "sslmode=prefer")), Ok(true));
        assert_eq!(encrypted(url("127.0.0.1", "sslmode=require")), Ok(true));
        let proven = format!("sslmode=verify-full&sslrootcert={certificate}");
        assert_eq!(encrypted(url("localhost", &proven)), Ok(true));
        for (host, options) in [
            ("127.0.0.1", proven.as_str()),
            ("localhost", "sslmode=verify-full"),
        ] {
            let error = encrypted(url(host, options)).unwrap_err();
            assert!(
                error.to_string().contains("certificate"),
                "{host} {options}: {error}"
            );
        }
    }
}
