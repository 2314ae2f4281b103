//! How a server is reached, and as whom. Files that the config names are read for each request,
//! so that a renewed secret or certificate serves the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prometheus_http_query as api;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::tls::Version;
use reqwest::{Certificate, ClientBuilder, Identity, NoProxy, Proxy, Url};

use crate::config::{
    Auth, ProxyConfig, Secret, SecretSource, TlsConfig, TlsVersion, TransportConfig, UpstreamConfig,
};

use super::ClientError;
use super::client::root_cause;
use super::token::{Token, Tokens};

const MAX_CONNECT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 10;

/// Why nothing could be sent. `passing` means that it may be otherwise a moment later.
#[derive(Debug)]
pub(super) struct Refused {
    pub problem: String,
    pub passing: bool,
}

impl Refused {
    /// What a file that is being replaced looks like.
    pub fn passing(problem: String) -> Self {
        let passing = true;
        Self { problem, passing }
    }
}

pub(super) struct Access {
    config: Arc<UpstreamConfig>,
    transport: Transport,
    tokens: Option<Tokens>,
    /// Those of the last request, for messages.
    secrets: Mutex<Vec<Secret>>,
}

/// What one request is sent with.
pub(super) struct Opened {
    pub api: api::Client,
    pub headers: HeaderMap,
    pub token: Option<Token>,
}

impl Access {
    /// `section` of the config, for messages.
    pub fn new(section: &'static str, config: &UpstreamConfig) -> Result<Self, ClientError> {
        // Fails only when a provider is installed already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let invalid_url = |problem: &str| ClientError::Url {
            section,
            url: without_credentials(&config.url),
            problem: problem.into(),
        };
        let setup = |problem| ClientError::Setup { section, problem };
        let base = config.url.trim_end_matches('/');
        let url =
            Url::parse(base).map_err(|error| invalid_url(&format!("is not a URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid_url("is neither http nor https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid_url("has a query or a fragment"));
        }
        let follow = match (config.follow_redirects, sends_credentials(config)) {
            (false, _) => Follow::Nowhere,
            (true, true) => Follow::ToSameServer,
            (true, false) => Follow::Anywhere,
        };
        let transport = Transport::new(&config.transport, url, config.timeout, follow);
        let tokens = match &config.auth {
            Some(Auth::OAuth2(oauth2)) => Some(Tokens::new(oauth2, config.timeout).map_err(setup)?),
            _ => None,
        };
        let access = Self {
            transport,
            tokens,
            secrets: Mutex::default(),
            config: Arc::new(config.clone()),
        };
        // What is wrong with the files at the start is said at the start.
        let held = Held::read(&access.config).map_err(setup)?;
        access.assemble(held, None).map_err(setup)?;
        Ok(access)
    }

    /// Reads what the files hold now, and asks for a token when there is none.
    pub async fn open(&self) -> Result<Opened, Refused> {
        let token = match &self.tokens {
            Some(tokens) => Some(tokens.current().await?),
            None => None,
        };
        let config = self.config.clone();
        let held = in_background(move || Held::read(&config)).await;
        held.and_then(|held| self.assemble(held, token))
            .map_err(Refused::passing)
    }

    /// Forgets a token that the server does not accept; whether another one can be had.
    pub async fn discard(&self, token: Option<Token>) -> bool {
        match (&self.tokens, token) {
            (Some(tokens), Some(token)) => {
                tokens.discard(&token).await;
                true
            }
            _ => false,
        }
    }

    /// Takes the secrets out of what a server says, in case that it repeats them.
    pub fn hide(&self, text: &mut String) {
        hide(text, &self.secrets());
    }

    fn secrets(&self) -> MutexGuard<'_, Vec<Secret>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assemble(&self, held: Held, token: Option<Token>) -> Result<Opened, String> {
        let http = self.transport.client(held.tls)?;
        let mut headers = HeaderMap::new();
        if let Some(host) = &self.transport.host {
            headers.insert(HOST, host.clone());
        }
        for (name, value) in &held.headers {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("the HTTP header {name:?} has an invalid name"))?;
            headers.append(key, header_value(name, value.expose())?);
        }
        let mut secrets = held.secrets;
        if let Some(token) = &token {
            secrets.extend(token.header.expose().split(' ').next_back().map(secret));
        }
        let authorization = held
            .authorization
            .or(token.as_ref().map(|t| t.header.clone()));
        if let Some(value) = authorization {
            headers.insert(
                AUTHORIZATION,
                header_value("authorization", value.expose())?,
            );
        }
        *self.secrets() = secrets;
        let url = self.transport.url.as_str();
        let api = api::Client::from(http, url).map_err(|error| error.to_string())?;
        Ok(Opened {
            api,
            headers,
            token,
        })
    }
}

/// Whether a request carries anything that another server must not see.
fn sends_credentials(config: &UpstreamConfig) -> bool {
    let tls = &config.transport.tls;
    config.auth.is_some()
        || !config.http_headers.is_empty()
        || tls.cert.is_some()
        || tls.server_name.is_some()
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        format!("the HTTP header {name:?} has a value with characters that a header cannot carry")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the config and its files say at one moment.
struct Held {
    tls: Pem,
    /// The value of the header.
    authorization: Option<Secret>,
    headers: Vec<(String, Secret)>,
    /// All that no message may repeat.
    secrets: Vec<Secret>,
}

impl Held {
    fn read(config: &UpstreamConfig) -> Result<Self, String> {
        let mut secrets = proxy_secrets(&config.transport.proxy);
        let authorization = match &config.auth {
            None | Some(Auth::OAuth2(_)) => None,
            Some(Auth::Basic { username, password }) => {
                let (username, password) = (username.read()?, password.read()?);
                let login = format!("{}:{}", username.expose(), password.expose());
                let login = secret(&BASE64_STANDARD.encode(login));
                let value = format!("Basic {}", login.expose());
                secrets.extend([password, login]);
                Some(Secret::new(value))
            }
            Some(Auth::Authorization {
                scheme,
                credentials,
            }) => {
                let credentials = credentials.read()?;
                let value = format!("{scheme} {}", credentials.expose());
                secrets.push(credentials);
                Some(Secret::new(value))
            }
        };
        let mut headers = Vec::new();
        for (name, values) in &config.http_headers {
            for value in values {
                let value = value.read()?;
                secrets.push(value.clone());
                headers.push((name.clone(), value));
            }
        }
        Ok(Self {
            tls: Pem::read(&config.transport.tls)?,
            authorization,
            headers,
            secrets,
        })
    }
}

fn proxy_secrets(config: &ProxyConfig) -> Vec<Secret> {
    let mut secrets: Vec<_> = config.connect_headers.values().flatten().cloned().collect();
    for proxy in [&config.http, &config.https].into_iter().flatten() {
        if let Ok(url) = Url::parse(proxy.expose())
            && let Some(password) = url.password()
        {
            let login = format!("{}:{password}", url.username());
            secrets.extend([secret(password), secret(&BASE64_STANDARD.encode(login))]);
        }
    }
    secrets
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// The certificates and the key of a TLS configuration.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Pem {
    ca: Option<Secret>,
    cert: Option<Secret>,
    key: Option<Secret>,
}

impl Pem {
    pub fn read(config: &TlsConfig) -> Result<Self, String> {
        let read = |source: &Option<SecretSource>| source.as_ref().map(SecretSource::read);
        Ok(Self {
            ca: read(&config.ca).transpose()?,
            cert: read(&config.cert).transpose()?,
            key: read(&config.key).transpose()?,
        })
    }
}

/// Where a redirect may lead. Only such as keep the query are followed: 307 and 308.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Follow {
    Nowhere,
    /// Credentials go to no other server.
    ToSameServer,
    Anywhere,
}

impl Follow {
    fn policy(self) -> Policy {
        if self == Self::Nowhere {
            return Policy::none();
        }
        Policy::custom(move |attempt| {
            let keeps_query = matches!(attempt.status().as_u16(), 307 | 308);
            let from = attempt.previous().last().map(Url::origin);
            let fits = self == Self::Anywhere || from == Some(attempt.url().origin());
            match keeps_query && fits && attempt.previous().len() <= MAX_REDIRECTS {
                true => attempt.follow(),
                false => attempt.stop(),
            }
        })
    }
}

/// Connections to one server. Made anew when a certificate or the key is another one.
pub(super) struct Transport {
    config: TransportConfig,
    /// Has the name of the certificate as its host, if that is configured.
    pub url: Url,
    /// The `Host` header with the true one then.
    pub host: Option<HeaderValue>,
    alias: Option<Alias>,
    timeout: Duration,
    follow: Follow,
    made: Mutex<Option<(Pem, reqwest::Client)>>,
}

impl Transport {
    pub fn new(config: &TransportConfig, url: Url, timeout: Duration, follow: Follow) -> Self {
        let mut transport = Self {
            config: config.clone(),
            url: url.clone(),
            host: None,
            alias: None,
            timeout,
            follow,
            made: Mutex::default(),
        };
        if let (Some(name), Some(host)) = (&config.tls.server_name, url.host_str())
            && transport.url.set_host(Some(name)).is_ok()
        {
            let port = url
                .port()
                .map_or_else(String::new, |port| format!(":{port}"));
            transport.host = HeaderValue::from_str(&format!("{host}{port}")).ok();
            transport.alias = Some(Alias {
                name: name.to_ascii_lowercase(),
                host: host.trim_matches(['[', ']']).to_owned(),
            });
        }
        transport
    }

    pub fn client(&self, pem: Pem) -> Result<reqwest::Client, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, client)) = &*made
            && *before == pem
        {
            return Ok(client.clone());
        }
        let client = self.build(&pem)?;
        *made = Some((pem, client.clone()));
        Ok(client)
    }

    fn build(&self, pem: &Pem) -> Result<reqwest::Client, String> {
        let failed = |error: reqwest::Error| {
            format!("failed to set up the HTTP client: {}", root_cause(&error))
        };
        let builder = self.builder(pem)?;
        if let Some(ca) = &pem.ca {
            let roots = Certificate::from_pem_bundle(ca.expose().as_bytes())
                .map_err(|error| format!("tls_config.ca: {}", root_cause(&error)))?;
            if roots.is_empty() {
                return Err(format!(
                    "tls_config.ca{} holds no certificate",
                    place(&self.config.tls.ca)
                ));
            }
            return builder.tls_certs_only(roots).build().map_err(failed);
        }
        match builder.build() {
            // Plain HTTP must also work where the system has no certificates to load.
            Err(_) if self.url.scheme() == "http" => self
                .builder(pem)?
                .tls_certs_only([])
                .build()
                .map_err(failed),
            built => built.map_err(failed),
        }
    }

    fn builder(&self, pem: &Pem) -> Result<ClientBuilder, String> {
        let tls = &self.config.tls;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("forewarn/", env!("CARGO_PKG_VERSION")))
            .redirect(self.follow.policy())
            .connect_timeout(self.timeout.min(MAX_CONNECT))
            // A little more than the server gets, so that its own word on a timeout arrives.
            .read_timeout(self.timeout + self.timeout / 10)
            .tls_danger_accept_invalid_certs(tls.insecure_skip_verify);
        if let Some(version) = tls.min_version {
            builder = builder.tls_version_min(version_of(version));
        }
        if let Some(version) = tls.max_version {
            builder = builder.tls_version_max(version_of(version));
        }
        if let (Some(cert), Some(key)) = (&pem.cert, &pem.key) {
            let both = format!("{}\n{}\n", cert.expose(), key.expose());
            let identity = Identity::from_pem(both.as_bytes()).map_err(|_| {
                format!(
                    "tls_config.cert{} and key{} hold no certificate with its private key",
                    place(&tls.cert),
                    place(&tls.key)
                )
            })?;
            builder = builder.identity(identity);
        }
        if let Some(alias) = &self.alias {
            builder = builder.dns_resolver(alias.clone());
        }
        // Those of the environment only where the config says so.
        builder = builder.no_proxy();
        for proxy in proxies(&self.config.proxy)? {
            builder = builder.proxy(proxy);
        }
        Ok(builder)
    }
}

/// ` (the file)`
fn place(source: &Option<SecretSource>) -> String {
    match source {
        Some(SecretSource::File(path)) => format!(" ({})", path.display()),
        _ => String::new(),
    }
}

fn version_of(version: TlsVersion) -> Version {
    match version {
        TlsVersion::Tls12 => Version::TLS_1_2,
        TlsVersion::Tls13 => Version::TLS_1_3,
    }
}

fn proxies(config: &ProxyConfig) -> Result<Vec<Proxy>, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in &config.connect_headers {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("proxy_connect_header: {name:?} is no HTTP header"))?;
        for value in values {
            headers.append(key.clone(), header_value(name, value.expose())?);
        }
    }
    // reqwest's own text would show the URL, in which there may be a password.
    let invalid = |_| String::from("the URL of the proxy is not valid");
    let http = config.http.as_ref().map(|url| Proxy::http(url.expose()));
    let https = config.https.as_ref().map(|url| Proxy::https(url.expose()));
    let finish = |proxy: reqwest::Result<Proxy>| {
        let proxy = proxy.map_err(invalid)?;
        let proxy = proxy.no_proxy(NoProxy::from_string(&config.no_proxy));
        Ok(match headers.is_empty() {
            true => proxy,
            false => proxy.headers(headers.clone()),
        })
    };
    http.into_iter().chain(https).map(finish).collect()
}

/// Finds the server by its true host when it is asked for by the name in its certificate.
#[derive(Clone)]
struct Alias {
    name: String,
    host: String,
}

impl Resolve for Alias {
    fn resolve(&self, name: Name) -> Resolving {
        let host = match name.as_str() == self.name {
            true => self.host.clone(),
            false => name.as_str().to_owned(),
        };
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Also takes out the beginning of a secret where the text was cut in it. What is shorter is none.
pub(super) fn hide(text: &mut String, secrets: &[Secret]) {
    const SHORTEST: usize = 4;
    for secret in secrets.iter().map(Secret::expose) {
        if secret.len() < SHORTEST {
            continue;
        }
        if text.contains(secret) {
            *text = text.replace(secret, "[secret]");
        }
        let end = text.trim_end_matches('…');
        let cut = (SHORTEST..secret.len())
            .filter(|n| secret.is_char_boundary(*n))
            .find(|n| end.ends_with(&secret[..*n]));
        if let Some(n) = cut {
            let end = end.len() - n;
            text.truncate(end);
            text.push_str("[secret]");
        }
    }
}

/// Files may lie on a disk that does not answer.
pub(super) async fn in_background<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| Err(format!("reading the files of the config failed: {error}")))
}

pub(super) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};
    use wiremock::matchers::{any, header, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::prometheus::{Client, QueryError};
    use crate::time::Timestamp;

    const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

    fn config(url: &str) -> UpstreamConfig {
        UpstreamConfig {
            url: url.into(),
            timeout: Duration::from_secs(5),
            concurrency: 2,
            auth: None,
            http_headers: [].into(),
            follow_redirects: true,
            transport: TransportConfig::default(),
        }
    }

    fn inline(text: &str) -> SecretSource {
        SecretSource::Inline(Secret::new(text.into()))
    }

    async fn ask(client: &Client) -> Result<(), QueryError> {
        let step = Duration::from_secs(60);
        client.instant("up", Timestamp(0), step).await.map(drop)
    }

    async fn ask_with(config: &UpstreamConfig) -> Result<(), QueryError> {
        ask(&Client::new(config).unwrap()).await
    }

    fn empty() -> ResponseTemplate {
        ResponseTemplate::new(200).set_body_raw(EMPTY, "application/json")
    }

    async fn serve(response: ResponseTemplate) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(any())
            .respond_with(response)
            .mount(&server)
            .await;
        server
    }

    #[test]
    fn what_a_server_repeats_is_hidden() {
        let secrets = ["geheim-1", "ab", "tenant"].map(secret);
        for (text, expected) in [
            ("a geheim-1 b geheim-1", "a [secret] b [secret]"),
            ("ab tenant ab", "ab [secret] ab"),
            ("begins gehe…", "begins [secret]"),
            ("begins geh…", "begins geh…"),
            ("begins geheim-", "begins [secret]"),
            ("", ""),
        ] {
            let mut hidden = text.to_owned();
            hide(&mut hidden, &secrets);
            assert_eq!(hidden, expected);
        }
    }

    #[tokio::test]
    async fn secrets_in_files_serve_the_query_after_their_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let [password, tenant] = ["password", "tenant"].map(|name| dir.path().join(name));
        fs::write(&password, "old\n").unwrap();
        fs::write(&tenant, " a \n").unwrap();
        let server = MockServer::start().await;
        Mock::given(any())
            .respond_with(empty())
            .mount(&server)
            .await;
        let sent = async || {
            let request = server.received_requests().await.unwrap().pop().unwrap();
            let of = |name: &str| request.headers.get_all(name).iter().cloned();
            let tenants: Vec<_> = of("x-scope-orgid").collect();
            format!("{tenants:?} {:?}", of("authorization").next().unwrap())
        };
        let client = Client::new(&UpstreamConfig {
            auth: Some(Auth::Basic {
                username: inline("me"),
                password: SecretSource::File(password.clone()),
            }),
            http_headers: [(
                "X-Scope-OrgID".into(),
                vec![inline("z"), SecretSource::File(tenant.clone())],
            )]
            .into(),
            ..config(&server.uri())
        })
        .unwrap();
        ask(&client).await.unwrap();
        assert_eq!(sent().await, r#"["z", "a"] "Basic bWU6b2xk""#);
        fs::write(&password, "new").unwrap();
        fs::write(&tenant, "b").unwrap();
        ask(&client).await.unwrap();
        let renewed = r#"["z", "b"] "Basic bWU6bmV3""#;
        assert_eq!(sent().await, renewed);
        let said = async || ask(&client).await.unwrap_err();
        fs::remove_file(&password).unwrap();
        let gone = said().await;
        assert_eq!((gone.kind(), gone.is_retryable()), ("credentials", true));
        let words = format!("{password:?} cannot be read: No such file or directory");
        assert!(gone.to_string().contains(&words), "{gone}");
        fs::write(&password, "\n").unwrap();
        assert!(said().await.to_string().contains("is empty"));
        fs::write(&password, "new").unwrap();
        fs::write(&tenant, "x\ny").unwrap();
        let odd = said().await.to_string();
        assert!(
            odd.contains("characters that a header cannot carry"),
            "{odd}"
        );
        assert_eq!(server.received_requests().await.unwrap().len(), 2);
        fs::write(&tenant, "b").unwrap();
        ask(&client).await.unwrap();
        assert_eq!(sent().await, renewed);
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            let issuer = Issuer::new(params, key);
            Self { issuer, pem }
        }

        /// Certificate and key.
        fn certify(&self, name: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            let cert = params.signed_by(&key, &self.issuer).unwrap();
            (cert.pem(), key.serialize_pem())
        }

        /// A server with a certificate of `name`, which asks clients for one of this authority.
        fn server(&self, name: &str) -> Arc<ServerConfig> {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let (cert, key) = self.certify(name);
            let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(der(&self.pem)).unwrap();
            let clients = WebPkiClientVerifier::builder(roots.into())
                .allow_unauthenticated()
                .build()
                .unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let config = ServerConfig::builder()
                .with_client_cert_verifier(clients)
                .with_single_cert(vec![der(&cert)], key);
            config.unwrap().into()
        }
    }

    /// The name that was asked for, whether there was a client's certificate, the head of the request.
    type Seen = Arc<Mutex<Vec<(Option<String>, bool, String)>>>;

    fn tls_server(config: &Arc<Mutex<Arc<ServerConfig>>>) -> (u16, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let (log, config) = (seen.clone(), config.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let config = config.lock().unwrap().clone();
                let mut tls = ServerConnection::new(config).unwrap();
                let mut stream = Stream::new(&mut tls, &mut socket);
                let mut request = [0; 4096];
                let Ok(read) = stream.read(&mut request) else {
                    continue;
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{EMPTY}",
                    EMPTY.len()
                );
                // Before the answer: who has it looks here.
                log.lock().unwrap().push((
                    stream.conn.server_name().map(str::to_owned),
                    stream.conn.peer_certificates().is_some(),
                    String::from_utf8_lossy(&request[..read]).to_lowercase(),
                ));
                let _ = stream.write_all(head.as_bytes());
                tls.send_close_notify();
                let _ = tls.complete_io(&mut socket);
            }
        });
        (port, seen)
    }

    #[tokio::test]
    async fn certificates_in_files_serve_the_query_after_their_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| dir.path().join(name));
        let write = |authority: &Authority| {
            let client = authority.certify("forewarn");
            fs::write(&ca, &authority.pem).unwrap();
            fs::write(&cert, client.0).unwrap();
            fs::write(&key, client.1).unwrap();
        };
        let (old, new) = (Authority::new(), Authority::new());
        write(&old);
        let server = Arc::new(Mutex::new(old.server("prometheus.example")));
        let (port, seen) = tls_server(&server);
        let file = |path: &Path| Some(SecretSource::File(path.into()));
        let mut config = config(&format!("https://127.0.0.1:{port}/p"));
        config.transport.tls = TlsConfig {
            ca: file(&ca),
            cert: file(&cert),
            key: file(&key),
            server_name: Some("Prometheus.example".into()),
            ..TlsConfig::default()
        };
        let client = Client::new(&config).unwrap();
        ask(&client).await.unwrap();
        let (name, certified, head) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(name.as_deref(), Some("prometheus.example"));
        assert!(certified);
        assert!(head.starts_with("post /p/api/v1/query "), "{head}");
        assert!(
            head.contains(&format!("host: 127.0.0.1:{port}\r\n")),
            "{head}"
        );

        *server.lock().unwrap() = new.server("prometheus.example");
        let error = ask(&client).await.unwrap_err();
        assert_eq!(error.kind(), "unreachable", "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        write(&new);
        ask(&client).await.unwrap();
        fs::write(&key, new.certify("another").1).unwrap();
        let error = ask(&client).await.unwrap_err();
        assert_eq!(error.kind(), "credentials", "{error}");
        fs::write(&key, "half of a k").unwrap();
        let error = ask(&client).await.unwrap_err().to_string();
        assert!(error.contains(key.to_str().unwrap()), "{error}");
        write(&new);
        ask(&client).await.unwrap();

        config.transport.tls.server_name = None;
        let error = ask_with(&config).await.unwrap_err().to_string();
        assert!(error.contains("not valid for name"), "{error}");
        config.transport.tls = TlsConfig {
            insecure_skip_verify: true,
            max_version: Some(TlsVersion::Tls12),
            ..TlsConfig::default()
        };
        ask_with(&config).await.unwrap();
        assert!(!seen.lock().unwrap().pop().unwrap().1);
    }

    #[tokio::test]
    async fn a_proxy_is_asked_instead_with_its_own_credentials() {
        let proxy = serve(empty()).await;
        let address = proxy.uri().replace("http://", "");
        let url = Secret::new(format!("http://u:geheim@{address}"));
        let mut config = config("http://prometheus.invalid:9090");
        config.transport.proxy = ProxyConfig {
            http: Some(url.clone()),
            https: Some(url),
            no_proxy: "127.0.0.1".into(),
            connect_headers: [].into(),
        };
        ask_with(&config).await.unwrap();
        let request = &proxy.received_requests().await.unwrap()[0];
        assert_eq!(request.headers["host"], "prometheus.invalid:9090");
        assert_eq!(request.headers["proxy-authorization"], "Basic dTpnZWhlaW0=");
        assert!(!request.headers.contains_key("authorization"));
        // A tunnel is refused by a server that is no proxy.
        config.url = "https://prometheus.invalid".into();
        let error = ask_with(&config).await.unwrap_err();
        assert_eq!(error.kind(), "unreachable");
        assert!(!error.to_string().contains("geheim"), "{error}");
        config.url = proxy.uri();
        ask_with(&config).await.unwrap();
        let requests = proxy.received_requests().await.unwrap();
        let last = &requests.last().unwrap().headers;
        assert!(!last.contains_key("proxy-authorization"), "{last:?}");
    }

    #[tokio::test]
    async fn redirects_keep_the_query_and_show_credentials_to_nobody_else() {
        let redirect =
            |status, to: &str| ResponseTemplate::new(status).insert_header("location", to);
        let other = serve(empty()).await;
        let server = MockServer::start().await;
        for (from, response) in [
            ("/a", redirect(307, "/b/api/v1/query")),
            ("/b", redirect(308, "/c/api/v1/query")),
            ("/c", empty()),
            ("/loop", redirect(307, "/loop/api/v1/query")),
            ("/found", redirect(302, "/c/api/v1/query")),
            ("/other", redirect(307, &format!("{}/d", other.uri()))),
        ] {
            Mock::given(path(format!("{from}/api/v1/query")))
                .respond_with(response)
                .mount(&server)
                .await;
        }
        let at = |path: &str, tenant: bool, follow_redirects: bool| {
            let tenant = tenant.then(|| ("X-Scope-OrgID".to_owned(), vec![inline("geheim")]));
            UpstreamConfig {
                http_headers: tenant.into_iter().collect(),
                follow_redirects,
                ..config(&format!("{}{path}", server.uri()))
            }
        };
        ask_with(&at("/a", true, true)).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| {
            request.headers["x-scope-orgid"] == "geheim" && request.body == requests[0].body
        }));
        ask_with(&at("/other", false, true)).await.unwrap();
        assert_eq!(other.received_requests().await.unwrap().len(), 1);
        server.reset().await;
        Mock::given(header("x-scope-orgid", "geheim"))
            .and(path("/other/api/v1/query"))
            .respond_with(redirect(307, &format!("{}/d", other.uri())))
            .mount(&server)
            .await;
        let error = ask_with(&at("/other", true, true)).await.unwrap_err();
        assert!(
            error.to_string().contains("configure that address"),
            "{error}"
        );
        assert_eq!(other.received_requests().await.unwrap().len(), 1);

        for (path_, status, follow, sent) in [
            ("/loop", 307, true, 11),
            ("/loop", 307, false, 1),
            ("/found", 302, true, 1),
        ] {
            let server = serve(redirect(status, &format!("{path_}/api/v1/query"))).await;
            let error = ask_with(&UpstreamConfig {
                follow_redirects: follow,
                ..config(&format!("{}{path_}", server.uri()))
            })
            .await
            .unwrap_err();
            assert_eq!(error.kind(), "protocol", "{error}");
            assert!(error.to_string().contains("it redirects to"), "{error}");
            let requests = server.received_requests().await.unwrap();
            assert_eq!(requests.len(), sent, "{path_} {status} {follow}");
        }
    }
}
