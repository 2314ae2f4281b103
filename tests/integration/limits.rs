//! Where time is paused it jumps to the next deadline as soon as nothing is left to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use forewarn::metrics::Metrics;
use forewarn::server::{self, App, Serving, Web};

use super::fleet::{ORIGIN, bundle, config};

/// A server without cycles and state, with a model; it ends with the test.
pub struct Served {
    pub address: std::net::SocketAddr,
    _server: JoinSet<()>,
}

pub async fn serve(web: Option<Arc<Web>>) -> Served {
    let mut config = config();
    config.api.request_timeout = Duration::from_secs(10);
    let metrics = Metrics::new(ORIGIN).expect("the metrics are valid");
    let config = Arc::new(config);
    let app = Arc::new(App::new(config.clone(), metrics, None, || ORIGIN));
    app.serving.store(Arc::new(Serving {
        config,
        model: Some(bundle()),
        snapshot: None,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut server = JoinSet::new();
    server.spawn(server::serve(
        app,
        web,
        vec![listener],
        std::future::pending(),
    ));
    Served {
        address,
        _server: server,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    /// Everything that is answered to these bytes.
    async fn answer(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        // Who is refused early may find that nobody reads the rest.
        let _ = client.write_all(request).await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn headers_are_bounded_in_size_and_number() {
    let served = serve(None).await;
    let get =
        |headers: &str| format!("GET /-/healthy HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
    for (headers, status) in [
        ("x: 1\r\n".repeat(90), "200"),
        ("x: 1\r\n".repeat(10_000), "431"),
        (format!("x: {}\r\n", "1".repeat(16_000)), "200"),
        (format!("x: {}\r\n", "1".repeat(64_000)), "431"),
    ] {
        let answer = served.answer(get(&headers).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer:.100}"
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let answer = served.answer(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer:.100}");
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_refused_and_overflows_nothing() {
    let served = serve(None).await;
    let deep = |open: &str, close: &str| open.repeat(300_000) + &close.repeat(300_000);
    let arrays = deep("[", "]");
    for (path, body, status) in [
        ("/predict", arrays.clone(), "422"),
        ("/predict", "[".repeat(1_000_000), "400"),
        ("/predict", "{\"a\":".repeat(500_000), "400"),
        ("/predict", format!("{{\"cpu_usage\":{arrays}}}"), "422"),
        ("/predict", format!("{{\"history\":{arrays}}}"), "422"),
        ("/predict", format!("{{\"target\":{arrays}}}"), "422"),
        (
            "/predict",
            format!("{{\"cpu_usage\":1,\"other\":{arrays}}}"),
            "200",
        ),
        ("/predict/batch", arrays.clone(), "422"),
        ("/predict/batch", "[".repeat(1_000_000), "400"),
        (
            "/predict/batch",
            format!("[{{\"history\":[{{\"a\":{arrays}}}]}}]"),
            "422",
        ),
    ] {
        let answer = served.answer(post(path, &body).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path} {body:.20}: {answer:.300}"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let served = serve(None).await;
    let mut requests =
        "GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n"
            .repeat(200);
    requests += &post("/predict", "{}");
    let answer = served.answer(requests.as_bytes()).await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses.len(), 401);
    assert!(statuses[..400].chunks(2).all(|two| two == ["200", "404"]));
    assert_eq!(statuses[400], "422");
}

/// Sends a byte a second until the server ends the connection; the answer, and how long it took.
async fn drip(served: &Served, head: &str, drop: &[u8]) -> (String, Duration) {
    let mut client = served.connect().await;
    client
        .write_all(head.as_bytes())
        .await
        .expect("the head is taken");
    let begun = Instant::now();
    let (mut reader, mut writer) = client.into_split();
    let dripping = async {
        while writer.write_all(drop).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::select! {
        () = dripping => (),
        () = reading => (),
    }
    (
        String::from_utf8_lossy(&answer).into_owned(),
        begun.elapsed(),
    )
}

#[tokio::test(start_paused = true)]
async fn who_drips_is_cut_off() {
    let served = serve(None).await;
    let (answer, took) = drip(&served, "GET / HTTP/1.1\r\nx: ", b"1").await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert!(took <= Duration::from_secs(80), "headers: {took:?}");
    let head = "POST /predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let (answer, took) = drip(&served, head, b" ").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(took <= Duration::from_secs(15), "body: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_answer_is_cut_off() {
    let served = serve(None).await;
    let mut client = served.connect().await;
    let ask = "GET /docs/redoc.standalone.js HTTP/1.1\r\nhost: a\r\n\r\n".repeat(40);
    client
        .write_all(ask.as_bytes())
        .await
        .expect("the requests are taken");
    let begun = Instant::now();
    // The end of the connection shows when more is written to it.
    while client.write_all(b"GET ").await.is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "still connected"
        );
        sleep(Duration::from_secs(1)).await;
    }
}

/// Opens a connection from another address of this host.
async fn connect_from(address: &str, to: std::net::SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let from = format!("{address}:0").parse().expect("an address");
    socket.bind(from).expect("the address is this host's");
    socket.connect(to).await.expect("a connection")
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    // Both ends are files of this process.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).expect("enough files");
    let served = serve(None).await;
    let mut held = Vec::new();
    for _ in 0..512 {
        held.push(served.connect().await);
    }
    // More of it are answered once, work with 503, and many more are closed.
    let body = r#"{"cpu_usage": 1}"#;
    let answer = served.answer(post("/predict", body).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let healthy = b"GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = served.answer(healthy).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for _ in 0..32 {
        held.push(served.connect().await);
    }
    assert_eq!(served.answer(healthy).await, "");

    let mut other = connect_from("127.0.0.2", served.address).await;
    let request = post("/predict", body);
    other
        .write_all(request.as_bytes())
        .await
        .expect("the request is taken");
    let mut answer = Vec::new();
    let _ = other.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "not served");

    drop(held);
    // The server notices at its own pace that they are gone.
    let mut answer = String::new();
    for _ in 0..100 {
        answer = served.answer(post("/predict", body).as_bytes()).await;
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{answer}");
}
