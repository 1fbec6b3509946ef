//! TLS as libpq's `sslmode` selects it, with rustls.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::files::in_home;
use super::settings::{Settings, SslMode};

/// Returns the TLS connector of the settings.
pub(super) fn connector(settings: &Settings) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(settings, &provider)?));
    let mut config = match client_certificate(settings)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client certificate: {error}"))?,
        None => builder.with_no_client_auth(),
    };
    // https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config.enable_sni = settings.get("sslsni") != Some("0");
    Ok(MakeRustlsConnect::new(config))
}

/// Verifies certificates as far as the `sslmode` requires.
#[derive(Debug)]
struct Verifier {
    /// Without it, every certificate is accepted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

/// A root file makes `require` and the modes below it verify the chain, as with [libpq].
///
/// [libpq]: https://www.postgresql.org/docs/current/libpq-ssl.html#LIBQ-SSL-CERTIFICATES
fn verifier(settings: &Settings, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
    let roots = roots(settings)?;
    if roots.is_none() && settings.ssl_mode >= SslMode::VerifyCa {
        return Err(
            "this sslmode needs sslrootcert, or the file ~/.postgresql/root.crt".to_owned(),
        );
    }
    let chain = match roots {
        Some(roots) => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| format!("sslrootcert: {error}"))?,
        ),
        None => None,
    };
    Ok(Verifier {
        chain,
        checks_name: settings.ssl_mode == SslMode::VerifyFull,
        provider: Arc::clone(provider),
    })
}

fn roots(settings: &Settings) -> Result<Option<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    let file = match settings.get("sslrootcert") {
        Some("system") => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("the system has no root certificates".to_owned());
            }
            return Ok(Some(roots));
        }
        Some(file) => Some(PathBuf::from(file)),
        None => in_home(".postgresql/root.crt").filter(|file| file.exists()),
    };
    let Some(file) = file else {
        return Ok(None);
    };
    // libpq reads this list by default.
    if in_home(".postgresql/root.crl").is_some_and(|list| list.exists()) {
        return Err("~/.postgresql/root.crl: revocation lists are not supported".to_owned());
    }
    let problem =
        |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| problem(&error))? {
        let certificate = certificate.map_err(|error| problem(&error))?;
        roots.add(certificate).map_err(|error| problem(&error))?;
    }
    Ok(Some(roots))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(settings: &Settings) -> Result<Option<Identity>, String> {
    if settings.get("sslcertmode") == Some("disable") {
        return Ok(None);
    }
    let file = |keyword: &str, default: &str| {
        let set = settings.get(keyword).map(PathBuf::from);
        set.or_else(|| in_home(default).filter(|file| file.exists()))
    };
    // As with libpq, a certificate that does not exist is none.
    let certificate = file("sslcert", ".postgresql/postgresql.crt");
    let Some(certificate) = certificate.filter(|file| file.exists()) else {
        return Ok(None);
    };
    let key = file("sslkey", ".postgresql/postgresql.key").ok_or("sslcert needs sslkey")?;
    let problem = |error: rustls::pki_types::pem::Error| format!("sslcert or sslkey: {error}");
    let chain = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(problem)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(problem)?;
    Ok(Some((chain, key)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
