use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use forewarn::config::{Config, Environment};

/// In every secret of the configs below, and in the base64 of those that are sent so.
const PLANTED: [&str; 2] = ["geheim", "Z2VoZWlt"];

/// A secret under each key that can hold one, or in the file that the key names.
struct Plants {
    dir: TempDir,
    key: String,
    certificate: String,
}

impl Plants {
    fn new() -> Self {
        let names = ["forewarn".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let plants = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            // What stands before the BEGIN of a PEM is no part of it.
            key: format!("geheim\n{}", certified.signing_key.serialize_pem()),
            certificate: certified.cert.pem(),
        };
        for (name, text) in [("secret", "geheim-file\n"), ("key", plants.key.as_str())] {
            fs::write(plants.file(name), text).expect("the folder can be written to");
        }
        plants
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Configs that hold them all between them; `url` and `proxy` are asked in vain.
    fn configs(&self, url: &str, proxy: &str, token: &str) -> Vec<String> {
        let secret = self.file("secret");
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let tls = |key: String| format!("{{cert: {}, {key}}}", quoted(&self.certificate));
        let inline_key = tls(format!("key: {}", quoted(&self.key)));
        let key_file = tls(format!("key_file: {:?}", self.file("key")));
        let auths = [
            "basic_auth: {username: geheim-user, password: geheim-password}".to_owned(),
            format!("basic_auth: {{username_file: {secret:?}, password_file: {secret:?}}}"),
            "authorization: {type: Token, credentials: geheim-credentials}".to_owned(),
            format!("authorization: {{credentials_file: {secret:?}}}"),
            format!(
                "oauth2: {{client_id: id, client_secret: geheim-client, token_url: '{token}/token?geheim=geheim', \
                 endpoint_params: {{password: geheim-param}}, tls_config: {inline_key}, \
                 proxy_url: 'http://geheim:geheim-proxy@{proxy}', proxy_connect_header: {{X-P: [geheim]}}}}"
            ),
            format!(
                "oauth2: {{client_id: id, client_secret_file: {secret:?}, token_url: '{token}/token'}}"
            ),
        ];
        let demo = fs::read_to_string("deploy/demo/config.yaml").expect("the demo's config");
        let rest = &demo[demo.find("targets:").expect("the section")..];
        let config = |(i, auth): (usize, &String)| {
            let tls = if i % 2 == 0 { &inline_key } else { &key_file };
            format!(
                "prometheus:\n  url: {url}\n  timeout: 1s\n  {auth}\n  tls_config: {tls}\n  \
                 proxy_url: 'http://geheim:geheim-proxy@{proxy}'\n  proxy_connect_header: {{X-P: [geheim]}}\n  \
                 http_headers: {{X-A: geheim-a, X-B: {{values: [geheim-b], secrets: [geheim-c], files: [{secret:?}]}}}}\n\n{rest}"
            )
        };
        auths.iter().enumerate().map(config).collect()
    }
}

#[track_caller]
fn shows_none(what: &str, text: &str) {
    for planted in PLANTED {
        let at = text.find(planted).map(|at| {
            let start = text[..at].char_indices().rev().nth(200).map_or(0, |c| c.0);
            &text[start..at + planted.len()]
        });
        assert_eq!(at, None, "{what} shows a secret");
    }
}

fn command(config: &Path, state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forewarn"));
    command
        .args(args)
        .arg("--config.file")
        .arg(config)
        .env("LOG_LEVEL", "trace")
        .env("RUST_BACKTRACE", "full")
        .env("MODEL_PATH", "models")
        .env("DATA_PATH", state)
        .env("API_HOST", "127.0.0.1")
        .env("API_PORT", "0")
        .stdin(Stdio::null());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_secret_is_in_no_error_log_or_debug_text() {
    let plants = Plants::new();
    let refusing = MockServer::start().await;
    Mock::given(path("/token"))
        .respond_with(ResponseTemplate::new(400).set_body_json(json!({"error": "invalid_scope"})))
        .mount(&refusing)
        .await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(401))
        .mount(&refusing)
        .await;
    let granting = MockServer::start().await;
    Mock::given(path("/token"))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({"access_token": "geheim-token"})),
        )
        .mount(&granting)
        .await;
    // It repeats what it was sent.
    let echo = |request: &wiremock::Request| {
        let values = request.headers.values();
        let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
        ResponseTemplate::new(500).set_body_string(values.join(" "))
    };
    Mock::given(any()).respond_with(echo).mount(&granting).await;
    let file = plants.file("config.yaml");
    let state = plants.file("state");
    let mut tried = 0;
    for (url, server) in [
        ("http://prometheus.invalid", refusing.uri()),
        ("http://prometheus.invalid", granting.uri()),
        ("https://prometheus.invalid", granting.uri()),
        ("http://prometheus.invalid", "http://127.0.0.1:9".into()),
    ] {
        let proxy = server.trim_start_matches("http://");
        for text in plants.configs(url, proxy, &server) {
            fs::write(&file, &text).expect("the folder can be written to");
            let config = Config::load(&file, &Environment::default()).expect("a good config");
            shows_none("Debug of the config", &format!("{config:?}"));
            let output = command(&file, &state, &["check", "queries"])
                .output()
                .expect("the command runs");
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!output.status.success(), "{text}");
            assert!(said.contains("the queries have problems"), "{said}");
            shows_none("check queries", &said);
            tried += 1;
        }
    }
    assert_eq!(tried, 24);

    for text in plants.configs(
        "http://prometheus.invalid",
        refusing.address().to_string().as_str(),
        &refusing.uri(),
    ) {
        fs::write(&file, text).expect("the folder can be written to");
        let log = plants.file("log");
        let to = |log: &Path| {
            File::options()
                .append(true)
                .create(true)
                .open(log)
                .expect("a log")
        };
        let mut serve = command(&file, &state, &["serve"]);
        let serve = serve.stdout(to(&log)).stderr(to(&log)).spawn();
        let running = Running(serve.expect("the command runs"));
        let begun = Instant::now();
        let said = loop {
            let said = fs::read_to_string(&log).expect("a log");
            if said.contains("signals.cpu_usage.query") {
                break said;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no query failed: {said}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        drop(running);
        shows_none("the log of serve", &said);
        fs::remove_file(&log).expect("the log can be removed");
    }
}

#[test]
fn a_secret_at_the_wrong_place_is_not_repeated() {
    let rest = "signals: {load: {query: up, unit: none}}\nfailure: {queries: [up == 0]}\n";
    for wrong in [
        "authorization: Bearer geheim",
        "basic_auth: [geheim]",
        "basic_auth: {username: {geheim: 1}, password: {a: geheim}}",
        "oauth2: {client_id: a, client_secret: [geheim], token_url: 'geheim://x', scopes: geheim}",
        "oauth2: {client_id: a, client_secret: b, token_url: 'https://geheim@x', endpoint_params: geheim}",
        "http_headers: geheim",
        "http_headers: {X: {values: geheim, secrets: {a: geheim}, files: geheim}}",
        "tls_config: {cert: geheim, key: geheim, ca: geheim}",
        "proxy_url: 'geheim://u:geheim@x'",
        "proxy_connect_header: {X: geheim}",
        "url: 'http://u:geheim@x'",
        "url: 'http://u:geheim@x:y'",
    ] {
        // A key of the user's own may be named.
        let text = format!("prometheus:\n  {wrong}\n{rest}");
        let error = Config::parse(&text, "config.yaml", &Environment::default());
        let message = error.expect_err(wrong).to_string();
        shows_none(wrong, &message.replace("username.geheim", ""));
    }
}
