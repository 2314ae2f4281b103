//! `tls_server_config`: from PEM and names to what rustls serves with.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ProtocolVersion,
    RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::super::check::{boolean, text};
use super::super::reader::{Section, Value};
use super::Files;

/// What is asked of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ClientAuth {
    Never,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

const CLIENT_AUTHS: [(&str, ClientAuth); 6] = [
    ("NoClientCert", ClientAuth::Never),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
    // Its old name in exporter-toolkit.
    ("RequireClientCert", ClientAuth::RequireAny),
];

const CURVES: [(&str, &dyn SupportedKxGroup); 3] = [
    ("X25519", ring::kx_group::X25519),
    ("CurveP256", ring::kx_group::SECP256R1),
    ("CurveP384", ring::kx_group::SECP384R1),
];

/// The config, and whether it asks for client certificates; `None` once a problem is reported.
pub(super) fn server(s: &Section, files: &Files) -> Option<(Arc<ServerConfig>, bool)> {
    let chain = pem(s, files, "cert", "cert_file");
    let key = pem(s, files, "key", "key_file");
    for (key, file_key) in [("cert", "cert_file"), ("key", "key_file")] {
        if !s.has(key) && !s.has(file_key) {
            s.report(file_key, "is missing");
        }
    }
    let authorities = pem(s, files, "client_ca", "client_ca_file");
    let client_auth = s.get("client_auth_type", |value| {
        named("a client_auth_type", &CLIENT_AUTHS, value)
    });
    let client_auth = client_auth.unwrap_or(ClientAuth::Never);
    let allowed_names = s.list("client_allowed_sans", text);
    let provider = provider(s);
    let versions = versions(s);
    let own_order = s.get("prefer_server_cipher_suites", boolean);

    let verifier = client_verifier(s, client_auth, authorities, allowed_names, &provider);
    let chain: Vec<CertificateDer> = certificates(s, "cert", "cert_file", chain?)?;
    let private = match PrivateKeyDer::from_pem_slice(&key?) {
        Ok(private) => private,
        Err(_) => {
            s.report(
                given(s, "key", "key_file"),
                "holds no unencrypted private key in PEM",
            );
            return None;
        }
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions?)
        .map_err(|error| s.report("cipher_suites", error.to_string()))
        .ok()?;
    let builder = match verifier? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| {
            let key = given(s, "key", "key_file");
            s.report(key, format!("does not fit the certificate: {error}"));
        })
        .ok()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = own_order.unwrap_or(true);
    if client_auth != ClientAuth::Never {
        // A resumed session would carry its certificate on without a look at it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Some((Arc::new(config), client_auth != ClientAuth::Never))
}

/// Whichever of two keys is written.
fn given<'k>(s: &Section, key: &'k str, file_key: &'k str) -> &'k str {
    if s.has(key) { key } else { file_key }
}

/// PEM written in the config or in a file of its own.
fn pem(s: &Section, files: &Files, key: &str, file_key: &str) -> Option<Vec<u8>> {
    let inline = s.get(key, |value| text(value).map(String::into_bytes));
    let from_file = s.get(file_key, |value| files.bytes(value));
    if s.has(key) && s.has(file_key) {
        s.report(file_key, format!("cannot stand beside {key}; keep one"));
    }
    inline.or(from_file)
}

fn certificates(
    s: &Section,
    key: &str,
    file_key: &str,
    pem: Vec<u8>,
) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        Ok(_) => {
            s.report(given(s, key, file_key), "holds no certificate in PEM");
            None
        }
        Err(error) => {
            let message = format!("is not whole PEM: {error}");
            s.report(given(s, key, file_key), message);
            None
        }
    }
}

/// The one that a name stands for.
fn named<T: Copy>(what: &str, all: &[(&str, T)], value: &Value) -> Result<T, String> {
    let written = text(value)?;
    let found = all.iter().find(|(name, _)| *name == written);
    found.map(|(_, item)| *item).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!(
            "{value} is not {what} that forewarn has; use {}",
            names.join(", ")
        )
    })
}

/// Cipher suites and curves. As in Go the suites of TLS 1.3 are always there, whatever the list says.
fn provider(s: &Section) -> CryptoProvider {
    let mut provider = ring::default_provider();
    let (newer, older): (Vec<_>, Vec<_>) = provider
        .cipher_suites
        .iter()
        .copied()
        .partition(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
    let go_name = |suite: SupportedCipherSuite| {
        let name = suite.suite().as_str().unwrap_or_default();
        name.replacen("TLS13_", "TLS_", 1)
    };
    let names: Vec<(String, SupportedCipherSuite)> = older
        .iter()
        .chain(&newer)
        .map(|suite| (go_name(*suite), *suite))
        .collect();
    let names: Vec<(&str, SupportedCipherSuite)> = names
        .iter()
        .map(|(name, suite)| (name.as_str(), *suite))
        .collect();
    let chosen = s.list("cipher_suites", |value| {
        named("a cipher suite", &names, value)
    });
    if !chosen.is_empty() {
        let chosen = chosen.into_iter().filter(|suite| !newer.contains(suite));
        provider.cipher_suites = newer.iter().copied().chain(chosen).collect();
    }
    let curves = s.list("curve_preferences", |value| {
        named("a curve", &CURVES, value)
    });
    if !curves.is_empty() {
        provider.kx_groups = curves;
    }
    provider
}

fn versions(s: &Section) -> Option<Vec<&'static rustls::SupportedProtocolVersion>> {
    let version = |value: &Value| match text(value)?.as_str() {
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        "TLS10" | "TLS11" => Err(format!(
            "{value} is broken and forewarn does not speak it; write TLS12 or TLS13"
        )),
        _ => Err(format!("{value} is not TLS12 or TLS13")),
    };
    let min = s.get("min_version", version).unwrap_or(12);
    let max = s.get("max_version", version).unwrap_or(13);
    if min > max {
        s.report("max_version", "is lower than min_version");
        return None;
    }
    let all = [(12, &TLS12), (13, &TLS13)];
    let within = all.into_iter().filter(|(n, _)| (min..=max).contains(n));
    Some(within.map(|(_, version)| version).collect())
}

/// `None` once a problem is reported; `Some(None)` when clients need no certificate.
fn client_verifier(
    s: &Section,
    client_auth: ClientAuth,
    authorities: Option<Vec<u8>>,
    allowed_names: Vec<String>,
    provider: &CryptoProvider,
) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
    use ClientAuth::*;
    if s.has("client_allowed_sans") && !matches!(client_auth, RequireAny | RequireAndVerify) {
        s.report(
            "client_allowed_sans",
            "needs client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert",
        );
    } else if s.has("client_allowed_sans") && allowed_names.is_empty() {
        s.report("client_allowed_sans", "names nobody; name at least one");
    }
    let ca_key = given(s, "client_ca", "client_ca_file");
    match client_auth {
        Never if s.has(ca_key) => s.report(
            ca_key,
            "is not used without client_auth_type; write RequireAndVerifyClientCert",
        ),
        VerifyIfGiven | RequireAndVerify if !s.has(ca_key) => s.report(
            "client_ca_file",
            "is missing; client_auth_type says that certificates are verified",
        ),
        _ => {}
    }
    let roots = match authorities {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(s, "client_ca", "client_ca_file", pem)? {
                if let Err(error) = roots.add(certificate) {
                    s.report(ca_key, format!("is not a certificate authority: {error}"));
                    return None;
                }
            }
            Some(roots)
        }
        None => None,
    };
    let chain = match (client_auth, roots) {
        (Never, _) => return Some(None),
        (VerifyIfGiven | RequireAndVerify, Some(roots)) => {
            let provider = Arc::new(provider.clone());
            let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| s.report(ca_key, error.to_string()));
            Some(built.ok()?)
        }
        (VerifyIfGiven | RequireAndVerify, None) => return None,
        (Request | RequireAny, _) => None,
    };
    Some(Some(Arc::new(ClientCertificates {
        chain,
        is_mandatory: matches!(client_auth, RequireAny | RequireAndVerify),
        allowed_names,
        provider: Arc::new(provider.clone()),
    })))
}

/// Go's ways to look at a client's certificate. That the client has its key is always verified.
#[derive(Debug)]
struct ClientCertificates {
    /// Verifies who has signed it; without, anybody may have.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    is_mandatory: bool,
    /// One of which must be a name of the certificate, unless there are none.
    allowed_names: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.chain {
            Some(chain) => chain.root_hint_subjects(),
            None => &[],
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        let is_allowed = |name: &String| self.allowed_names.contains(name);
        match self.allowed_names.is_empty() || alternative_names(end_entity).iter().any(is_allowed)
        {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// DNS names, mail addresses, URIs and IP addresses; none when the certificate cannot be read.
fn alternative_names(certificate: &CertificateDer) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension() else {
        return Vec::new();
    };
    let text = |name| match name {
        GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text)
        | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let address = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|a| a.to_canonical().to_string())
        }
        _ => None,
    };
    names.into_iter().filter_map(text).collect()
}
