//! How Prometheus is reached, and as whom: the keys of its own `http_config`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    HOST, HeaderName, TRANSFER_ENCODING,
};

use super::Secret;
use super::check::{self, boolean, one_of, text};
use super::reader::{Section, Value};

/// Larger files hold no secret.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Written in the config, or in a file that is read again whenever it is needed.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretSource {
    Inline(Secret),
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now, without the white space around it.
    ///
    /// # Errors
    /// Which file, and why there is no secret in it; never what it holds.
    pub fn read(&self) -> Result<Secret, String> {
        let path = match self {
            Self::Inline(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("{path:?} cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("{path:?} is larger than 1 MiB"));
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => Err(format!("{path:?} is empty")),
            Ok(text) => Ok(Secret::new(text.trim().into())),
            Err(_) => Err(format!("{path:?} is not UTF-8 text")),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    Basic {
        username: SecretSource,
        password: SecretSource,
    },
    /// `Authorization: <scheme> <credentials>`
    Authorization {
        scheme: String,
        credentials: SecretSource,
    },
    OAuth2(Box<OAuth2Config>),
}

/// The client credentials grant.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2Config {
    pub client_id: String,
    pub client_secret: SecretSource,
    /// May carry a query, which may be secret.
    pub token_url: Secret,
    pub scopes: Vec<String>,
    /// Further parameters of the request for a token.
    pub endpoint_params: BTreeMap<String, Secret>,
    pub transport: TransportConfig,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransportConfig {
    pub tls: TlsConfig,
    pub proxy: ProxyConfig,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// PEM: the certificate authorities to trust instead of the system's.
    pub ca: Option<SecretSource>,
    /// PEM: the client's certificate; there is a key too then.
    pub cert: Option<SecretSource>,
    pub key: Option<SecretSource>,
    /// Asked of the server and expected in its certificate, instead of the URL's host.
    pub server_name: Option<String>,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS12",
            Self::Tls13 => "TLS13",
        }
    }
}

/// Proxies by the scheme of what is asked for; their URLs may hold a password.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyConfig {
    pub http: Option<Secret>,
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached without a proxy, separated by commas.
    pub no_proxy: String,
    pub connect_headers: BTreeMap<String, Vec<Secret>>,
}

/// At most one way to authenticate.
pub(super) fn auth(s: &Section) -> Option<Auth> {
    let basic = s.optional_section("basic_auth", |s| {
        let username = required_source(s, "username", check::user_name);
        let password = required_source(s, "password", check::header_text);
        Some(Auth::Basic {
            username: username?,
            password: password?,
        })
    });
    let authorization = s.optional_section("authorization", |s| {
        let scheme = s
            .get("type", check::auth_scheme)
            .unwrap_or_else(|| "Bearer".into());
        Some(Auth::Authorization {
            scheme,
            credentials: required_source(s, "credentials", check::header_text)?,
        })
    });
    let oauth2 = s.optional_section("oauth2", oauth2);
    let mut written = ["basic_auth", "authorization", "oauth2"]
        .into_iter()
        .filter(|key| s.has(key));
    if let Some(first) = written.next() {
        for key in written {
            s.report(key, format!("cannot stand beside {first}; keep one"));
        }
    }
    basic.or(authorization).or(oauth2).flatten()
}

fn oauth2(s: &Section) -> Option<Auth> {
    let client_id = s.required("client_id", text);
    let client_secret = required_source(s, "client_secret", check::header_text);
    let token_url = s.required("token_url", check::token_url);
    let scopes = s.list("scopes", text);
    let endpoint_params = s.section("endpoint_params", |s| {
        let param = |name: &str| Some((name.to_owned(), s.get(name, check::plain_secret)?));
        s.names().into_iter().filter_map(param).collect()
    });
    let transport = transport(s);
    Some(Auth::OAuth2(Box::new(OAuth2Config {
        client_id: client_id?,
        client_secret: client_secret?,
        token_url: token_url?,
        scopes,
        endpoint_params,
        transport,
    })))
}

pub(super) fn transport(s: &Section) -> TransportConfig {
    let config = TransportConfig {
        tls: s.section("tls_config", tls),
        proxy: proxy(s),
    };
    if config.tls.server_name.is_some() && config.proxy != ProxyConfig::default() {
        s.report(
            "tls_config.server_name",
            "cannot stand beside a proxy, which would be asked for that host; write it in the URL instead",
        );
    }
    config
}

fn tls(s: &Section) -> TlsConfig {
    let version = |key| {
        s.get(
            key,
            one_of("a TLS version", &TlsVersion::ALL, TlsVersion::name),
        )
    };
    let config = TlsConfig {
        ca: source(s, "ca", check::certificates),
        cert: source(s, "cert", check::certificates),
        key: source(s, "key", check::private_key),
        server_name: s.get("server_name", check::server_name),
        min_version: version("min_version"),
        max_version: version("max_version"),
        insecure_skip_verify: s.get("insecure_skip_verify", boolean).unwrap_or(false),
    };
    for (key, other) in [("cert", "key"), ("key", "cert")] {
        let has = |key: &str| s.has(key) || s.has(&format!("{key}_file"));
        if has(key) && !has(other) {
            s.report(
                other,
                format!("is missing beside {key}; write {other} or {other}_file"),
            );
        }
    }
    if let (Some(min), Some(max)) = (config.min_version, config.max_version)
        && min > max
    {
        s.report("max_version", "is lower than min_version");
    }
    config
}

fn proxy(s: &Section) -> ProxyConfig {
    let url = s.get("proxy_url", check::proxy_url);
    let no_proxy = s.get("no_proxy", check::no_proxy);
    let from_environment = s.get("proxy_from_environment", boolean).unwrap_or(false);
    let connect_headers = s.section("proxy_connect_header", |s| {
        let header = |name: &str| {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                s.report(name, "is not the name of an HTTP header");
            }
            (name.to_owned(), s.list(name, check::secret))
        };
        s.names().into_iter().map(header).collect()
    });
    if from_environment {
        for key in ["proxy_url", "no_proxy"]
            .into_iter()
            .filter(|key| s.has(key))
        {
            s.report(key, "cannot stand beside proxy_from_environment; keep one");
        }
        let variable = |name: &str| {
            let lower = name.to_lowercase();
            let name = [name, &lower].into_iter().find(|name| s.is_set(name))?;
            s.variable(name, check::proxy_url)
        };
        let no_proxy = ["NO_PROXY", "no_proxy"]
            .into_iter()
            .find(|name| s.is_set(name))
            .and_then(|name| s.variable(name, text));
        return ProxyConfig {
            http: variable("HTTP_PROXY"),
            https: variable("HTTPS_PROXY"),
            // As everywhere: what runs on this host is not asked for by a proxy that only the environment knows.
            no_proxy: format!("localhost,127.0.0.0/8,::1,{}", no_proxy.unwrap_or_default()),
            connect_headers,
        };
    }
    for key in ["no_proxy", "proxy_connect_header"] {
        if s.has(key) && !s.has("proxy_url") {
            s.report(key, "means something only with proxy_url");
        }
    }
    ProxyConfig {
        http: url.clone(),
        https: url,
        no_proxy: no_proxy.unwrap_or_default(),
        connect_headers,
    }
}

/// `{name: value}`, or as Prometheus has it: `{name: {values: […], secrets: […], files: […]}}`.
pub(super) fn headers(s: &Section) -> BTreeMap<String, Vec<SecretSource>> {
    let mut headers = BTreeMap::new();
    for name in s.names() {
        let values = if s.holds_mapping(name) {
            s.section(name, header_values)
        } else {
            let one = s.get(name, check::secret);
            one.map(SecretSource::Inline).into_iter().collect()
        };
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => s.report(name, "is not the name of an HTTP header"),
            Ok(AUTHORIZATION) => s.report(
                name,
                "is written as prometheus.authorization or prometheus.basic_auth",
            ),
            Ok(
                ACCEPT_ENCODING | CONTENT_ENCODING | CONTENT_LENGTH | CONTENT_TYPE | HOST
                | TRANSFER_ENCODING | CONNECTION,
            ) => s.report(name, "is set by forewarn itself; remove it"),
            Ok(_) => drop(headers.insert(name.to_owned(), values)),
        }
    }
    headers
}

fn header_values(s: &Section) -> Vec<SecretSource> {
    let inline = |value: &Value| check::secret(value).map(SecretSource::Inline);
    let values: Vec<_> = [s.list("values", inline), s.list("secrets", inline)]
        .into_iter()
        .flatten()
        .chain(s.list("files", |value| secret_file(value, check::header_text)))
        .collect();
    if values.is_empty() && s.sound(&[""]) {
        s.report("", "has no value; write values, secrets or files");
    }
    values
}

/// A secret under `key`, or in the file under `key` + `_file`, if there is one.
fn source(s: &Section, key: &str, valid: fn(&str) -> Result<(), String>) -> Option<SecretSource> {
    let file_key = format!("{key}_file");
    let inline = s.get(key, |value| {
        let secret = text(value)?;
        valid(&secret).map(|()| SecretSource::Inline(Secret::new(secret)))
    });
    let from_file = s.get(&file_key, |value| secret_file(value, valid));
    if s.has(key) && s.has(&file_key) {
        s.report(&file_key, format!("cannot stand beside {key}; keep one"));
    }
    inline.or(from_file)
}

fn required_source(
    s: &Section,
    key: &str,
    valid: fn(&str) -> Result<(), String>,
) -> Option<SecretSource> {
    let source = source(s, key, valid);
    if !s.has(key) && !s.has(&format!("{key}_file")) {
        s.report(key, format!("is missing; write {key} or {key}_file"));
    }
    source
}

/// A file that holds something `valid` now.
fn secret_file(
    value: &Value,
    valid: fn(&str) -> Result<(), String>,
) -> Result<SecretSource, String> {
    let path = check::path(value)?;
    let source = SecretSource::File(path.clone());
    valid(source.read()?.expose()).map_err(|message| format!("{path:?} {message}"))?;
    Ok(source)
}
