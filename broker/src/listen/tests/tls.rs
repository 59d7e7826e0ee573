//! What a handshake must be.

use super::*;

#[tokio::test]
async fn tls_1_2_is_refused() {
    let bench = Bench::open(Speaks::Http1And2, Limits::default()).await;
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_ok());
    let refusal = bench.connect(bench.client(&TLS12, None)).await.unwrap_err().to_string();
    assert!(refusal.contains("ProtocolVersion"), "{refusal}");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let bench = Bench::open(Speaks::Http1And2, Limits::default()).await;
    let mut config = bench.client(&TLS13, None);
    config.resumption = Resumption::in_memory_sessions(8);
    for _ in 0..2 {
        let mut stream = bench.connect(config.clone()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_chain_over_64_kib_or_7_certificates_is_refused() {
    let bench = Bench::open(Speaks::Http1And2, Limits::default()).await;
    let chain_of = |count: usize, extra_len: usize| {
        let mut shown = pair("a", extra_len);
        shown.chain = vec![shown.chain[0].clone(); count];
        shown
    };
    for (count, extra_len, cut) in [(7, 0, false), (8, 0, true), (7, 8_800, false), (7, 9_400, true)] {
        let config = bench.client(&TLS13, Some(chain_of(count, extra_len)));
        let mut stream = bench.connect(config).await.unwrap();
        _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(is_cut(&mut stream).await, cut, "{count} certificates with {extra_len} more octets");
    }
}

#[tokio::test]
async fn a_certificate_whose_key_the_caller_does_not_hold_is_refused() {
    let bench = Bench::open(Speaks::Http1And2, Limits::default()).await;
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(pair("thief", 0).key).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(pair("victim", 0).chain, key);
    let mut config = bench.client(&TLS13, None);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    let mut stream = bench.connect(config).await.unwrap();
    _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(is_cut(&mut stream).await);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut() {
    let limits = Limits { handshake: Duration::from_millis(100), ..Limits::default() };
    let bench = Bench::open(Speaks::Http2, limits).await;
    let mut silent = TcpStream::connect(bench.addr).await.unwrap();
    let mut dripping = TcpStream::connect(bench.addr).await.unwrap();
    dripping.write_all(&[0x16]).await.unwrap();
    for stream in [&mut silent, &mut dripping] {
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut [0; 8])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    }
}

#[tokio::test]
async fn a_hello_in_records_of_one_octet_is_answered_or_cut_but_never_kept_waiting() {
    let bench = Bench::open(Speaks::Http2, Limits::default()).await;
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    let config = Arc::new(bench.client(&TLS13, None));
    rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    let records: Vec<u8> = hello[5..].iter().flat_map(|&octet| [0x16, 3, 1, 0, 1, octet]).collect();
    let mut stream = TcpStream::connect(bench.addr).await.unwrap();
    _ = stream.write_all(&records).await;
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut [0; 8])).await;
    assert!(read.is_ok(), "neither answered nor cut");
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_ok(), "the next caller is served");
}

#[tokio::test]
async fn nonsense_in_place_of_a_hello_is_cut() {
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let bench = Bench::open(Speaks::Http2, limits).await;
    let close_notify = [0x15, 3, 3, 0, 2, 1, 0];
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &close_notify, &[0; 64], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        let mut stream = TcpStream::connect(bench.addr).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(tokio::time::timeout(Duration::from_secs(2), read).await.is_ok(), "{nonsense:?}");
    }
    assert!(bench.connect(bench.client(&TLS13, None)).await.is_ok(), "the next caller is served");
}
