//! What of a request reaches the service behind the proxy, and what does not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::Bench;

/// Sends these bytes and reads to the end of the connection, or for two seconds.
async fn raw(bench: &Bench, bytes: &str) -> String {
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let limit = std::time::Duration::from_secs(2);
    drop(tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_not_allowed_or_could_be_read_in_two_ways_reaches_nobody() {
    let bench = Bench::start().await;
    bench.answers(200, "").await;
    let reached = bench.erp.seen().len();
    let smuggled = "GET /status HTTP/1.1\r\nhost: erp\r\n\r\n";
    let long = "x".repeat(40_000);
    for (what, request, expected) in [
        ("another path", "GET /admin HTTP/1.1\r\nhost: erp\r\n\r\n".to_owned(), "403"),
        ("another method", "DELETE /batch HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "403"),
        ("dots", "GET /status/../admin HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("encoded dots", "GET /status/%2e%2e/admin HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("dots encoded twice", "GET /status/%252e%252e/admin HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("an encoded slash", "GET /status/..%2fadmin HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("a backslash", "GET /status\\..\\admin HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("a whole URL", "GET http://127.0.0.1/status HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("a tunnel", "CONNECT erp:80 HTTP/1.1\r\nhost: erp\r\n\r\n".into(), "400"),
        ("two hosts", "GET /status HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), "400"),
        (
            "two lengths",
            format!(
                "POST /batch HTTP/1.1\r\nhost: erp\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx{smuggled}"
            ),
            "400",
        ),
        (
            "a signed length",
            format!("POST /batch HTTP/1.1\r\nhost: erp\r\ncontent-length: +1\r\n\r\nx{smuggled}"),
            "400",
        ),
        (
            "an unknown coding",
            format!(
                "POST /batch HTTP/1.1\r\nhost: erp\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            "400",
        ),
        ("a long head", format!("GET /status HTTP/1.1\r\nhost: erp\r\nx: {long}\r\n\r\n"), "431"),
        (
            "many fields",
            format!("GET /status HTTP/1.1\r\nhost: erp\r\n{}\r\n", "a: b\r\n".repeat(200)),
            "431",
        ),
        ("no HTTP", "\u{16}\u{3}\u{1}\r\n\r\n".into(), "400"),
    ] {
        let answer = raw(&bench, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        assert_eq!(
            bench.erp.seen().len(),
            reached,
            "{what} reached the upstream: {:?}",
            bench.erp.seen().last()
        );
    }
}

/// RFC 9112, section 6.3: the coding counts, the length goes no further, and the connection ends with the answer.
#[tokio::test]
async fn a_length_beside_a_coding_hides_no_second_request() {
    let bench = Bench::start().await;
    bench.answers(200, "").await;
    let (length, coding) = ("content-length: 4\r\n", "transfer-encoding: chunked\r\n");
    for fields in [format!("{length}{coding}"), format!("{coding}{length}")] {
        let reached = bench.erp.seen().len();
        let smuggled = "GET /status HTTP/1.1\r\nhost: erp\r\n\r\n";
        let head = format!("POST /batch HTTP/1.1\r\nhost: erp\r\n{fields}\r\n");
        let answer = raw(&bench, &format!("{head}3\r\na=1\r\n0\r\n\r\n{smuggled}")).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields}: {answer}");
        let seen = bench.erp.seen();
        assert_eq!(seen.len(), reached + 1, "{fields}");
        let last = seen.last().unwrap();
        assert_eq!((last.target.as_str(), last.body.as_slice()), ("/batch", &b"a=1"[..]));
        assert_eq!((last.all("content-length").len(), last.all("transfer-encoding").len()), (0, 1));
    }
}

#[tokio::test]
async fn what_goes_on_is_the_callers_alone_and_what_comes_back_the_upstreams() {
    let bench = Bench::start().await;
    bench.answers(200, "").await;
    let headers = [
        "authorization: Basic bWluZQ==",
        "x-forwarded-for: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "x-original-url: /admin",
        "x-http-method-override: DELETE",
        "connection: close, x-session",
        "x-session: 7",
        "te: trailers",
        "proxy-authorization: Basic bWluZQ==",
        "cookie: a=b",
        "accept: text/plain",
    ];
    let more: Vec<&str> = headers.iter().flat_map(|it| ["-H", *it]).collect();
    assert_eq!(bench.curl("/status?a=%2F..%2F&b", &more).await.status, 200);
    let seen = bench.erp.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/status?a=%2F..%2F&b"));
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "authorization", "cookie", "host", "user-agent"]);
    assert_eq!(seen.all("host"), [bench.erp.address.to_string()]);

    let moved = bench.curl("/moved", &["-i"]).await;
    assert!(moved.status == 302 && moved.body.contains("location: http://elsewhere.example/"), "{moved:?}");
    let slow = bench.curl("/status", &["-H", "x-slow: 9"]).await;
    assert_eq!((slow.status, slow.why().as_str()), (504, "upstream_timeout"));
}

/// The most memory that a process had so far.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn bodies_pass_through_and_are_held_nowhere() {
    let bench = Bench::start().await;
    bench.answers(200, "").await;
    let before = peak_kib(bench.agent().pid());
    let out = bench.deployment.folder().join("out");
    let said = bench.curl("/echo", &["-o", out.to_str().unwrap()]).await;
    assert_eq!((said.status, std::fs::metadata(&out).unwrap().len()), (200, 64 << 20));
    for more in [&[][..], &["-H", "transfer-encoding: chunked"]] {
        let mut arguments = vec!["-T", out.to_str().unwrap()];
        arguments.extend(more);
        let said = bench.curl("/batch", &arguments).await;
        assert_eq!((said.status, said.body.as_str()), (200, "67108864"));
    }
    let grown = peak_kib(bench.agent().pid()) - before;
    assert!(grown < 16 << 10, "{grown} KiB more for 64 MiB");
}
