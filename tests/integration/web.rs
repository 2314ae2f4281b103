use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use forewarn::config::Environment;
use forewarn::server::Web;

use super::limits::{Served, serve};

const PASSWORD: &str = "planted-password";
const TOKEN: &str = "planted-token";

/// A folder with what a web config names: certificates, keys, a token.
struct Place {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Place {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let place = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            authority,
        };
        place.write("ca.pem", &place.authority.pem());
        place.write("token", &format!("old-token\n{TOKEN}\n"));
        place.certify("server");
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the folder can be written to");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).expect("the file is there")
    }

    /// A certificate of the authority, which is both a server's and a client's.
    fn certify(&self, name: &str) {
        let (params, key) = certificate_of(name);
        let certificate = params
            .signed_by(&key, &self.authority)
            .expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// One that nobody has signed.
    fn certify_itself(&self, name: &str) {
        let (params, key) = certificate_of(name);
        let certificate = params.self_signed(&key).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn open(&self, config: &str) -> Arc<Web> {
        self.write("web.yml", config);
        Web::open(&self.path().join("web.yml"), Environment::default())
            .expect("the config is right")
    }

    fn client(&self, certificate: Option<&str>) -> Client {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.authority.der().clone())
            .expect("an authority");
        let provider = rustls::crypto::ring::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let tls = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::pem_slice_iter(&self.read(&format!("{name}.pem")))
                    .collect::<Result<_, _>>()
                    .expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(&self.read(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(chain, key.expect("a key"))
                    .expect("they fit")
            }
        };
        Client(Arc::new(tls))
    }
}

fn certificate_of(name: &str) -> (CertificateParams, KeyPair) {
    let mut params =
        CertificateParams::new([name.to_owned(), "127.0.0.1".to_owned()]).expect("names");
    let uri = Ia5String::try_from(format!("spiffe://fleet/{name}")).expect("a URI");
    params.subject_alt_names.push(SanType::URI(uri));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    (params, KeyPair::generate().expect("a key"))
}

struct Client(Arc<ClientConfig>);

impl Client {
    /// The answer to a request over TLS, and whose certificate the server has shown.
    async fn ask(&self, served: &Served, request: &str) -> io::Result<(String, Vec<u8>)> {
        let stream = TcpStream::connect(served.address).await?;
        let name = ServerName::from(IpAddr::from([127, 0, 0, 1]));
        let mut stream = TlsConnector::from(self.0.clone())
            .connect(name, stream)
            .await?;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .expect("a certificate")[0]
            .to_vec();
        Ok((converse(&mut stream, request).await?, shown))
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn plainly(served: &Served, request: &str) -> String {
    plainly_from([127, 0, 0, 1], served, request).await
}

async fn plainly_from(own: [u8; 4], served: &Served, request: &str) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((own, 0))).expect("an address");
    let stream = socket.connect(served.address).await.expect("a connection");
    converse(stream, request).await.expect("an answer")
}

fn request(method: &str, path: &str, authorization: &str) -> String {
    let authorization = match authorization {
        "" => String::new(),
        value => format!("authorization: {value}\r\n"),
    };
    let body = if method == "POST" {
        "{\"cpu_usage\":40}"
    } else {
        ""
    };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn users() -> String {
    let hash = bcrypt::hash(PASSWORD, 4).expect("a hash");
    format!("basic_auth_users: {{prometheus: '{hash}'}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_need_what_the_config_says() {
    let place = Place::new();
    let token = "forewarn: {write_credentials_file: token}\n";
    let open = "forewarn: {write_credentials_file: token, open_read: true}\n";
    let (right, wrong) = (
        basic("prometheus", PASSWORD),
        basic("prometheus", "guessed"),
    );
    let nobody = basic("nobody", PASSWORD);
    let (bearer, old) = (format!("Bearer {TOKEN}"), "bearer old-token".to_owned());
    let reads = [
        ("GET", "/metrics"),
        ("GET", "/-/healthy"),
        ("GET", "/api/v1/targets"),
        ("POST", "/predict"),
        ("POST", "/predict/batch"),
    ];
    let writes = [
        ("POST", "/webhook/alertmanager"),
        ("POST", "/-/reload"),
        ("PUT", "/-/reload"),
        ("DELETE", "/api/v1/incidents"),
        ("POST", "/predict/"),
    ];
    let none = String::new();
    for (config, credentials, may_read, may_write) in [
        (String::new(), &none, true, true),
        (users(), &none, false, false),
        (users(), &right, true, true),
        (users(), &wrong, false, false),
        (users(), &nobody, false, false),
        (users(), &bearer, false, false),
        (token.into(), &none, true, false),
        (token.into(), &bearer, true, true),
        (token.into(), &old, true, true),
        (token.into(), &right, true, false),
        (users() + token, &none, false, false),
        (users() + token, &right, true, true),
        (users() + token, &bearer, false, true),
        (users() + open, &none, true, false),
        (users() + open, &right, true, true),
        (users() + open, &wrong, true, false),
        (users() + open, &bearer, true, true),
        (users() + open, &"Bearer".into(), true, false),
        (users() + open, &"Bearer ".into(), true, false),
        (users() + open, &format!("{bearer}x"), true, false),
        (users() + open, &"Basic %%%".into(), true, false),
    ] {
        let served = serve(Some(place.open(&config))).await;
        let routes = reads.map(|route| (route, may_read));
        let routes = routes
            .into_iter()
            .chain(writes.map(|route| (route, may_write)));
        for ((method, path), may) in routes {
            let answer = plainly(&served, &request(method, path, credentials)).await;
            assert_eq!(
                status(&answer) != "401",
                may,
                "{method} {path} with {credentials:?} under {config}: {answer}"
            );
            assert!(!answer.contains("planted"), "{answer}");
            assert_eq!(
                answer.to_lowercase().contains("www-authenticate: "),
                !may,
                "{answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_keeps_nobody_else_out() {
    let place = Place::new();
    // Slow enough that the guesses pile up.
    let hash = bcrypt::hash(PASSWORD, 8).expect("a hash");
    let served = Arc::new(
        serve(Some(
            place.open(&format!("basic_auth_users: {{a: '{hash}'}}")),
        ))
        .await,
    );
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..40 {
        let served = served.clone();
        guesses.spawn(async move {
            let guess = request("GET", "/-/healthy", &basic("a", &format!("guess {n}")));
            plainly(&served, &guess).await
        });
    }
    let right = request("GET", "/-/healthy", &basic("a", PASSWORD));
    let answer = plainly_from([127, 0, 0, 2], &served, &right).await;
    assert_eq!(status(&answer), "200", "{answer}");
    let answers = guesses.join_all().await;
    let count = |code| {
        answers
            .iter()
            .filter(|answer| status(answer) == code)
            .count()
    };
    assert_eq!(count("401") + count("503"), answers.len(), "{answers:?}");
    assert!(count("401") >= 8, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_must_show_is_what_the_config_says() {
    let place = Place::new();
    for name in ["client", "stranger"] {
        place.certify(name);
    }
    place.certify_itself("nobody");
    let base = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";
    let any = "client_auth_type: RequireAnyClientCert";
    let verified = "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem";
    let certificates = [None, Some("client"), Some("stranger"), Some("nobody")];
    for (more, admitted) in [
        (String::new(), [true, true, true, true]),
        ("client_auth_type: RequestClientCert".into(), [true; 4]),
        (any.into(), [false, true, true, true]),
        (
            "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem".into(),
            [true, true, true, false],
        ),
        (verified.into(), [false, true, true, false]),
        (
            format!("{verified}\n  client_allowed_sans: [client]"),
            [false, true, false, false],
        ),
        (
            format!("{verified}\n  client_allowed_sans: ['spiffe://fleet/stranger']"),
            [false, false, true, false],
        ),
        (
            format!("{verified}\n  client_allowed_sans: [127.0.0.1]\n  max_version: TLS12"),
            [false, true, true, false],
        ),
        (
            format!("{any}\n  client_allowed_sans: [nobody]"),
            [false, false, false, true],
        ),
    ] {
        let served = serve(Some(place.open(&format!("{base}  {more}\n")))).await;
        for (certificate, admitted) in certificates.into_iter().zip(admitted) {
            let client = place.client(certificate);
            let answer = client.ask(&served, &request("GET", "/-/healthy", "")).await;
            let healthy = matches!(&answer, Ok((answer, _)) if status(answer) == "200");
            assert_eq!(
                healthy, admitted,
                "{certificate:?} under {more}: {answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_users_change_without_a_restart() {
    let place = Place::new();
    // As a ConfigMap: files are links through ..data, which is swapped.
    for (generation, name) in [("one", "server"), ("two", "renewed")] {
        place.certify(name);
        let folder = place.path().join(generation);
        fs::create_dir(&folder).expect("a folder");
        for kind in ["pem", "key"] {
            fs::write(
                folder.join(format!("tls.{kind}")),
                place.read(&format!("{name}.{kind}")),
            )
            .expect("a file");
        }
    }
    let link = |generation: &str| {
        let new = place.path().join("..new");
        std::os::unix::fs::symlink(generation, &new).expect("a link");
        fs::rename(new, place.path().join("..data")).expect("a swap");
    };
    link("one");
    let config = |users: &str| {
        format!(
            "tls_server_config: {{cert_file: ..data/tls.pem, key_file: ..data/tls.key}}\n{users}"
        )
    };
    let web = place.open(&config(&users()));
    let served = serve(Some(web)).await;
    let client = place.client(None);
    let get = |password| request("GET", "/-/healthy", &basic("prometheus", password));
    let shown = |name: &str| {
        let pem = place.read(&format!("{name}.pem"));
        CertificateDer::from_pem_slice(&pem)
            .expect("a certificate")
            .to_vec()
    };
    let (answer, certificate) = client
        .ask(&served, &get(PASSWORD))
        .await
        .expect("an answer");
    assert_eq!((status(&answer), certificate), ("200", shown("server")));

    link("two");
    let renewed = shown("renewed");
    until("the new certificate is shown", async || {
        let (answer, certificate) = client
            .ask(&served, &get(PASSWORD))
            .await
            .expect("an answer");
        assert_eq!(status(&answer), "200");
        certificate == renewed
    })
    .await;

    // Neither broken YAML nor a config without its TLS or users is taken.
    let other = bcrypt::hash("another", 4).expect("a hash");
    for broken in ["{".to_owned(), config(""), users(), String::new()] {
        place.write("web.yml", &broken);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let (answer, _) = client
            .ask(&served, &get(PASSWORD))
            .await
            .expect("an answer");
        assert_eq!(status(&answer), "200", "after {broken:?}");
        let (answer, _) = client
            .ask(&served, &get("another"))
            .await
            .expect("an answer");
        assert_eq!(status(&answer), "401", "after {broken:?}");
    }
    place.write(
        "web.yml",
        &config(&format!("basic_auth_users: {{prometheus: '{other}'}}")),
    );
    until("the new password is taken", async || {
        let (answer, _) = client
            .ask(&served, &get("another"))
            .await
            .expect("an answer");
        status(&answer) == "200"
    })
    .await;
    let (answer, _) = client
        .ask(&served, &get(PASSWORD))
        .await
        .expect("an answer");
    assert_eq!(
        status(&answer),
        "401",
        "the old password, once verified, is out"
    );
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: never");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_ends_and_holds_up_nobody() {
    let place = Place::new();
    let config = "tls_server_config: {cert_file: server.pem, key_file: server.key}";
    let served = serve(Some(place.open(config))).await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(
            TcpStream::connect(served.address)
                .await
                .expect("a connection"),
        );
    }
    // The first bytes of a ClientHello.
    stalled[0]
        .write_all(&[22, 3, 1])
        .await
        .expect("bytes are taken");
    let answer = place
        .client(None)
        .ask(&served, &request("GET", "/-/healthy", ""))
        .await;
    assert_eq!(status(&answer.expect("an answer").0), "200");
    let begun = Instant::now();
    for mut client in stalled {
        let _ = client.read_to_end(&mut Vec::new()).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    // Who does not speak TLS gets no answer in the clear.
    let stream = TcpStream::connect(served.address)
        .await
        .expect("a connection");
    let answer = converse(stream, &request("GET", "/metrics", ""))
        .await
        .unwrap_or_default();
    assert!(!answer.contains("HTTP"), "{answer}");
}

#[tokio::test]
async fn configured_headers_are_in_every_answer() {
    let place = Place::new();
    let headers = "http_server_config: {http2: false, headers: {X-Frame-Options: sameorigin, Strict-Transport-Security: max-age=60, X-XSS-Protection: ''}}\n";
    let served = serve(Some(place.open(&(headers.to_owned() + &users())))).await;
    for (path, credentials) in [
        ("/", basic("prometheus", PASSWORD)),
        ("/nowhere", basic("prometheus", PASSWORD)),
        ("/metrics", String::new()),
    ] {
        let answer = plainly(&served, &request("GET", path, &credentials)).await;
        let head = answer
            .split("\r\n\r\n")
            .next()
            .unwrap_or_default()
            .to_lowercase();
        for (header, count) in [
            ("x-frame-options: sameorigin", 1),
            ("x-frame-options", 1),
            ("strict-transport-security: max-age=60", 1),
            ("x-xss-protection", 0),
        ] {
            assert_eq!(
                head.matches(header).count(),
                count,
                "{path} {header}: {head}"
            );
        }
    }
}
