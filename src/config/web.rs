//! The file behind `--web.config.file`: TLS, users and headers of forewarn's own listener, in the format of
//! exporter-toolkit, and a section `forewarn` for what that format has not.

mod tls;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bcrypt::HashParts;
use reqwest::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::check::{self, boolean, text};
use super::reader::{self, Reader, Section, Value};
use super::{ConfigError, Environment, Secret};

/// The headers that can be set, and their values where only some make sense.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];
/// Each one more doubles the time of a check: 10 takes some 70 ms, 15 two seconds.
const MAX_BCRYPT_COST: u32 = 15;

/// A checked web config with everything that its files hold.
pub struct WebConfig {
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether the TLS handshake asks for a certificate of the client.
    pub client_certificates: bool,
    /// For every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Bcrypt hashes by user.
    pub users: BTreeMap<String, Secret>,
    /// Bearer tokens for the routes that write.
    pub write_credentials: Vec<Secret>,
    /// Whether the routes that only read need no user.
    pub open_read: bool,
}

impl WebConfig {
    /// Reads the file and all files that it names, and tells what it has seen in them.
    pub fn load(path: &Path, env: &Environment) -> (Result<Self, ConfigError>, Seen) {
        Self::load_by(&|path| fs::read(path), path, env)
    }

    /// The same, with files that `read` gives.
    pub fn load_by(
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
        path: &Path,
        env: &Environment,
    ) -> (Result<Self, ConfigError>, Seen) {
        let files = Files {
            read,
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            seen: RefCell::default(),
        };
        let config = Self::read(path, env, &files);
        (config, Seen(files.seen.into_inner()))
    }

    fn read(path: &Path, env: &Environment, files: &Files) -> Result<Self, ConfigError> {
        let source_name = path.display().to_string();
        let refused = |message| ConfigError::single(&source_name, 0, message);
        let bytes = files.remembered(path).map_err(|error| {
            refused(format!(
                "cannot be read: {error}; name the file by --web.config.file"
            ))
        })?;
        let text = String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text".into()))?;
        let mut tree = reader::parse(&text, &source_name)?;
        let reader = Reader {
            env,
            problems: RefCell::default(),
        };
        reader.resolve(&mut tree, "");
        let config = Section::read(&reader, String::new(), 1, &tree.value, |s| root(s, files));
        let problems = reader.problems.into_inner();
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::new(&source_name, problems)),
        }
    }
}

fn root(s: &Section, files: &Files) -> WebConfig {
    let tls = s.optional_section("tls_server_config", |s| tls::server(s, files));
    let tls = tls.flatten();
    let headers = s.section("http_server_config", |s| {
        if s.get("http2", boolean) == Some(true) {
            s.report(
                "http2",
                "is true, but forewarn speaks HTTP/1.1 only, as every client can; write false or remove the key",
            );
        }
        s.section("headers", headers)
    });
    s.get("rate_limit", |_| {
        Err::<(), _>("is not supported: forewarn bounds connections, bodies and password checks by itself; remove the key".into())
    });
    let users = match is_mapping(s, "basic_auth_users") {
        true => s.section("basic_auth_users", users_of),
        false => BTreeMap::new(),
    };
    let ours = |s: &Section| {
        let open_read = s.get("open_read", boolean).unwrap_or(false);
        if open_read && users.is_empty() {
            s.report(
                "open_read",
                "opens nothing: without basic_auth_users reading needs no user",
            );
        }
        (write_credentials(s, files), open_read)
    };
    let (write_credentials, open_read) = match is_mapping(s, "forewarn") {
        true => s.section("forewarn", ours),
        false => (Vec::new(), false),
    };
    let (tls, client_certificates) = match tls {
        Some((tls, client_certificates)) => (Some(tls), client_certificates),
        None => (None, false),
    };
    WebConfig {
        tls,
        client_certificates,
        headers,
        users,
        write_credentials,
        open_read,
    }
}

/// Reports what is none without its value: a secret in the wrong place must not become part of a message.
fn is_mapping(s: &Section, key: &str) -> bool {
    !s.has(key)
        || s.get(key, |value| match value {
            Value::Map(_) => Ok(()),
            _ => Err("is not a mapping of keys".into()),
        })
        .is_some()
}

fn headers(s: &Section) -> Vec<(HeaderName, HeaderValue)> {
    let header = |name: &str| {
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(name, _)| name).join(", ");
            s.get(name, |_| {
                Err::<(), _>(format!("cannot be set; these can: {known}"))
            });
            return None;
        };
        let value = s.get(name, |value| match value {
            Value::Text(blank) if blank.is_empty() => Ok(None),
            value => {
                let written = text(value)?;
                if !values.is_empty() && !values.contains(&written.as_str()) {
                    return Err(format!("{value} is not one of {}", values.join(", ")));
                }
                let header = HeaderValue::from_str(&written);
                header
                    .map(Some)
                    .map_err(|_| "holds characters that no HTTP header can carry".into())
            }
        })??;
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    s.names().into_iter().filter_map(header).collect()
}

fn users_of(s: &Section) -> BTreeMap<String, Secret> {
    let hash = |value: &Value| {
        let written = text(value)?;
        let Ok(parts) = written.parse::<HashParts>() else {
            return Err("is not a bcrypt hash; make one with htpasswd -nBC 10 \"\"".into());
        };
        match parts.get_cost() {
            4..=MAX_BCRYPT_COST => Ok(Secret::new(written)),
            cost => Err(format!(
                "has the bcrypt cost {cost}; it must be 4 to {MAX_BCRYPT_COST}, and 10 is usual"
            )),
        }
    };
    let user = |name: &str| {
        if name.contains(':') {
            s.report(name, "holds a colon, which no user of basic auth can");
        }
        Some((name.to_owned(), s.get(name, hash)?))
    };
    s.names().into_iter().filter_map(user).collect()
}

/// One token, or one on each line of a file.
fn write_credentials(s: &Section, files: &Files) -> Vec<Secret> {
    let (key, file_key) = ("write_credentials", "write_credentials_file");
    let inline = s.get(key, check::secret);
    let from_file = s.get(file_key, |value| {
        let content = files.text(value)?;
        let lines = content
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let tokens: Vec<Secret> = lines
            .map(|line| check::secret(&Value::Text(line.into())))
            .collect::<Result<_, _>>()
            .map_err(|message| format!("{value} {message}"))?;
        match tokens.is_empty() {
            true => Err(format!("{value} is empty; write a token into it")),
            false => Ok(tokens),
        }
    });
    if s.has(key) && s.has(file_key) {
        s.report(file_key, format!("cannot stand beside {key}; keep one"));
    }
    from_file.unwrap_or_else(|| inline.into_iter().collect())
}

/// Reads files, and remembers what was in them.
struct Files<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Of the web config: paths in it start there.
    folder: PathBuf,
    seen: RefCell<BTreeMap<PathBuf, Fingerprint>>,
}

/// Of a file's content; `None` when it cannot be read.
type Fingerprint = Option<[u8; 32]>;

impl Files<'_> {
    /// The content of the file that a value names.
    fn bytes(&self, value: &Value) -> Result<Vec<u8>, String> {
        let path = self.folder.join(check::path(value)?);
        self.remembered(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))
    }

    fn text(&self, value: &Value) -> Result<String, String> {
        String::from_utf8(self.bytes(value)?).map_err(|_| format!("{value} is not UTF-8 text"))
    }

    fn remembered(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = (self.read)(path);
        let seen = content.as_deref().ok().map(fingerprint);
        self.seen.borrow_mut().insert(path.to_owned(), seen);
        content
    }
}

/// What was in the files of a web config. Content, not time stamps: it sees through the links of a ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen(BTreeMap<PathBuf, Fingerprint>);

impl Seen {
    /// What is in the same files now.
    pub fn again(&self) -> Self {
        let look = |path: &PathBuf| fs::read(path).ok().as_deref().map(fingerprint);
        Self(self.0.keys().map(|p| (p.clone(), look(p))).collect())
    }
}

fn fingerprint(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

    /// A folder with a server's certificate and key, another key, an empty file and a token.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        for (name, text) in [
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("other.pem", other.serialize_pem()),
            ("empty", "\n".into()),
            ("token", "one\n\n two \n".into()),
            ("odd", "planted\u{1}token".into()),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn load(dir: &tempfile::TempDir, text: &str) -> Result<WebConfig, ConfigError> {
        let file = dir.path().join("web.yml");
        fs::write(&file, text).unwrap();
        WebConfig::load(&file, &Environment::default()).0
    }

    #[test]
    fn every_key_is_read() {
        let dir = folder();
        let text = format!(
            "
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: cert.pem
  client_allowed_sans: [prometheus.example.com]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256, X25519]
http_server_config:
  http2: false
  headers: {{Content-Security-Policy: default-src 'self', X-Content-Type-Options: nosniff, X-Frame-Options: deny, X-XSS-Protection: ''}}
basic_auth_users: {{prometheus: {HASH}, alice: '{HASH}'}}
forewarn: {{write_credentials_file: token, open_read: true}}
"
        );
        let config = load(&dir, &text).unwrap();
        let tls = config.tls.unwrap();
        assert!(config.client_certificates && config.open_read);
        assert_eq!(tls.crypto_provider().cipher_suites.len(), 4);
        assert_eq!(tls.crypto_provider().kx_groups.len(), 2);
        assert_eq!(tls.alpn_protocols, [b"http/1.1"]);
        assert_eq!(config.headers.len(), 3);
        assert_eq!(config.users.len(), 2);
        let tokens: Vec<_> = config
            .write_credentials
            .iter()
            .map(Secret::expose)
            .collect();
        assert_eq!(tokens, ["one", "two"]);
    }

    #[test]
    fn pem_may_stand_in_the_file() {
        let dir = folder();
        let indented = |name: &str| {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            text.replace('\n', "\n    ")
        };
        let text = format!(
            "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
            indented("cert.pem"),
            indented("key.pem")
        );
        assert!(load(&dir, &text).unwrap().tls.is_some());
    }

    #[test]
    fn nothing_is_a_config_too() {
        let config = load(&folder(), "").unwrap();
        assert!(config.tls.is_none() && config.users.is_empty());
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        let dir = folder();
        let base = "tls_server_config: {cert_file: cert.pem, key_file: key.pem";
        for (text, complaint) in [
            (
                "tls_server_config:",
                "tls_server_config.cert_file: is missing",
            ),
            (
                "tls_server_config: {cert_file: cert.pem}",
                "tls_server_config.key_file: is missing",
            ),
            (
                "tls_server_config: {cert_file: none, key_file: key.pem}",
                "none cannot be read",
            ),
            (
                "tls_server_config: {cert_file: empty, key_file: key.pem}",
                "cert_file: holds no certificate in PEM",
            ),
            (
                "tls_server_config: {cert_file: cert.pem, key_file: cert.pem}",
                "key_file: holds no unencrypted private key",
            ),
            (
                "tls_server_config: {cert_file: cert.pem, key_file: other.pem}",
                "key_file: does not fit the certificate",
            ),
            (
                "tls_server_config: {cert_file: cert.pem, key_file: key.pem, key: planted}",
                "key_file: cannot stand beside key",
            ),
            (
                &format!("{base}, min_version: TLS10}}"),
                "min_version: \"TLS10\" is broken",
            ),
            (
                &format!("{base}, min_version: TLS13, max_version: TLS12}}"),
                "max_version: is lower than min_version",
            ),
            (
                &format!("{base}, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}"),
                "\"TLS_RSA_WITH_AES_128_CBC_SHA\" is not a cipher suite that forewarn has; use TLS_ECDHE",
            ),
            (
                &format!("{base}, curve_preferences: [CurveP521]}}"),
                "\"CurveP521\" is not a curve that forewarn has; use X25519, CurveP256, CurveP384",
            ),
            (
                &format!("{base}, client_auth_type: Sometimes}}"),
                "\"Sometimes\" is not a client_auth_type",
            ),
            (
                &format!("{base}, client_auth_type: RequireAndVerifyClientCert}}"),
                "client_ca_file: is missing",
            ),
            (
                &format!("{base}, client_ca_file: cert.pem}}"),
                "client_ca_file: is not used without client_auth_type",
            ),
            (
                &format!("{base}, client_auth_type: RequestClientCert, client_allowed_sans: [a]}}"),
                "client_allowed_sans: needs client_auth_type",
            ),
            (
                &format!(
                    "{base}, client_auth_type: RequireAnyClientCert, client_allowed_sans: []}}"
                ),
                "client_allowed_sans: names nobody",
            ),
            (
                &format!("{base}, cert_flie: a}}"),
                "did you mean cert_file?",
            ),
            (
                "http_server_config: {http2: true}",
                "http2: is true, but forewarn speaks HTTP/1.1 only",
            ),
            (
                "http_server_config: {headers: {X-Powered-By: a}}",
                "headers.X-Powered-By: cannot be set; these can: Content-Security-Policy",
            ),
            (
                "http_server_config: {headers: {X-Frame-Options: allow}}",
                "\"allow\" is not one of deny, sameorigin",
            ),
            (
                "rate_limit: {interval: 1s, burst: 1}",
                "rate_limit: is not supported",
            ),
            (
                "basic_auth_users: planted",
                "basic_auth_users: is not a mapping",
            ),
            (
                "basic_auth_users: {alice: planted}",
                "basic_auth_users.alice: is not a bcrypt hash",
            ),
            (
                "basic_auth_users: {alice: [planted]}",
                "basic_auth_users.alice: a list is not text",
            ),
            (
                &format!(
                    "basic_auth_users: {{alice: '{}'}}",
                    HASH.replace("$10$", "$20$")
                ),
                "has the bcrypt cost 20",
            ),
            (
                &format!("basic_auth_users: {{'a:b': '{HASH}'}}"),
                "holds a colon",
            ),
            (
                &format!("basic_auth_users: {{a: '{HASH}', a: '{HASH}'}}"),
                "is written twice",
            ),
            ("forewarn: planted", "forewarn: is not a mapping"),
            ("forewarn: {open_read: true}", "open_read: opens nothing"),
            (
                "forewarn: {write_credentials: planted, write_credentials_file: token}",
                "cannot stand beside write_credentials",
            ),
            (
                "forewarn: {write_credentials_file: empty}",
                "\"empty\" is empty; write a token into it",
            ),
            (
                "forewarn: {write_credentials_file: odd}",
                "\"odd\" holds characters that no HTTP header can carry",
            ),
            ("basic_auth_user: {}", "did you mean basic_auth_users?"),
            ("{", "is not valid YAML"),
        ] {
            let complaints = load(&dir, text)
                .err()
                .map_or("nothing".into(), |e| e.to_string());
            assert!(complaints.contains(complaint), "{text}: {complaints}");
            assert!(complaints.contains("web.yml"), "{complaints}");
            for secret in ["planted", &HASH[10..], "PRIVATE"] {
                assert!(!complaints.contains(secret), "{text}: {complaints}");
            }
        }
    }
}
