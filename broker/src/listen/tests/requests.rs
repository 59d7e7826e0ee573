//! Connections and the requests on them.

use super::*;

#[tokio::test]
async fn each_request_knows_its_peer_and_its_connection() {
    let bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let mut with = bench.http2(Some(pair("a", 0))).await;
    assert_eq!(text(with.send_request(get("/")).await.unwrap()).await, "127.0.0.1 1 1");
    assert_eq!(text(with.send_request(get("/")).await.unwrap()).await, "127.0.0.1 1 2");
    let mut without = bench.http2(None).await;
    assert_eq!(text(without.send_request(get("/")).await.unwrap()).await, "127.0.0.1 0 1");
}

#[tokio::test]
async fn the_api_speaks_http2_alone() {
    let bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let mut config = bench.client(&TLS13, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(bench.connect(config).await.is_err());
    let answer = bench.plain_bytes(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share_of_connections() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let bench = Bench::open(Speaks::Http2, limits).await;
    let first = bench.connect(bench.client(&TLS13, None)).await.unwrap();
    let _second = bench.connect(bench.client(&TLS13, None)).await.unwrap();
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_err());
    drop(first);
    let mut attempts = 0;
    while bench.connect(bench.client(&TLS13, None)).await.is_err() {
        attempts += 1;
        assert!(attempts < 100, "the place of a closed connection was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_the_service_never_sees_them() {
    let bench = Bench::open(Speaks::Http1And2, Limits::default()).await;
    let long = "x".repeat(16 * 1024);
    let mut sender = bench.http2(None).await;
    let mut request = get("/");
    request.headers_mut().insert("x-long", long.parse().unwrap());
    let refused = sender.send_request(request).await;
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n");
    let answer = bench.plain_bytes(request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let limits = Limits { header_read: Duration::from_millis(100), ..Limits::default() };
    let bench = Bench::open(Speaks::Http1And2, limits).await;
    let mut stream = bench.connect(bench.client(&TLS13, None)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    assert!(is_cut(&mut stream).await);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_end() {
    let limits = Limits { age: Duration::from_millis(100), ..Limits::default() };
    let bench = Bench::open(Speaks::Http2, limits).await;
    let mut sender = bench.http2(None).await;
    assert!(sender.send_request(get("/")).await.is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(sender.send_request(get("/")).await.is_err());
}

#[tokio::test]
async fn requests_in_flight_are_answered_at_shutdown_and_no_more_are_taken() {
    let bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let mut sender = bench.http2(None).await;
    let slow = tokio::spawn(sender.send_request(get("/slow")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.shutdown.cancel();
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    tokio::time::timeout(Duration::from_secs(2), bench.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(bench.addr).await.is_err());
}

#[tokio::test]
async fn what_hangs_at_shutdown_is_cut_after_the_time_to_drain() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let bench = Bench::open(Speaks::Http2, limits).await;
    let mut sender = bench.http2(None).await;
    let slow = tokio::spawn(sender.send_request(get("/slow")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.shutdown.cancel();
    assert!(slow.await.unwrap().is_err());
}

#[test]
fn connections_that_follow_each_other_end_at_different_ages() {
    let ages: Vec<_> = (0..50).map(|ordinal| spread(Duration::from_secs(1000), ordinal).as_secs()).collect();
    assert!(ages.iter().all(|age| (900..=1000).contains(age)), "{ages:?}");
    assert_eq!(ages.iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
}

#[tokio::test]
async fn a_caller_that_resets_what_it_asks_is_sent_away() {
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let mut config = bench.client(&TLS13, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = bench.connect(config).await.unwrap();
    let mut flood = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    for id in (1..=400).step_by(2) {
        // `GET https://localhost/` in HPACK: three indexed fields and a literal authority.
        flood.extend(frame(1, 5, id, b"\x82\x87\x84\x41\x09localhost"));
        flood.extend(frame(3, 0, id, &[0, 0, 0, 8]));
    }
    _ = stream.write_all(&flood).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection was kept");
    let calmed = answer.windows(17).any(|at| at[3] == GOAWAY && at[13..17] == [0, 0, 0, ENHANCE_YOUR_CALM]);
    assert!(calmed, "{answer:?}");
}

#[tokio::test]
async fn only_an_accept_that_ran_out_of_something_waits() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    let waited = async |code| {
        let start = std::time::Instant::now();
        pause_after(&io::Error::from_raw_os_error(code)).await;
        start.elapsed() >= Duration::from_millis(100)
    };
    assert!(!waited(ECONNABORTED).await);
    assert!(waited(EMFILE).await);
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
