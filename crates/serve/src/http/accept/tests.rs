use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::task::JoinHandle;

use super::*;

const LIMITS: Limits = Limits {
    connections_max: 8,
    header_timeout: Duration::from_millis(200),
    write_timeout: Duration::from_millis(300),
    shutdown_timeout: Duration::from_secs(2),
};

struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

async fn start(limits: Limits) -> Server {
    let endless = || async {
        let chunks = futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 64 * 1024]));
        Body::from_stream(chunks)
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    };
    let refuse = || async { axum::http::StatusCode::PAYLOAD_TOO_LARGE };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/endless", get(endless))
        .route("/slow", get(slow))
        .route("/refuse", post(refuse));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(accept(listener, router, limits, stopping));
    Server { address, stop, running }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_half_closed_connection_gets_its_answer() {
    let server = start(LIMITS).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let server = start(LIMITS).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), read_all(&mut stream)).await;
    assert!(!ended.expect("the server ends the connection").contains("200 OK"));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let server = start(LIMITS).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..40 {
        stream.write_all(&chunk).await.expect("the server goes on reading for a while");
    }
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped() {
    let server = start(Limits { connections_max: 1, ..LIMITS }).await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The only slot is taken until the server gives up on the first client.
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), read_all(&mut second)).await;
    assert!(answer.expect("the slot becomes free").ends_with("hello"));
    drop(stuck);
}

#[tokio::test]
async fn stopping_lets_requests_in_progress_end() {
    let server = start(LIMITS).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send_replace(true);
    assert!(read_all(&mut stream).await.ends_with("done"));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), server.running).await.expect("it stops").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
