use axum::body::Body;
use daypass_evidence::tile::{Holds, Tile};
use daypass_verify::time::Seconds;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::listen::Limits;
use crate::listen::tests::Bench;
use crate::store::StoreError;
use crate::tls::Speaks;

const HOST: &str = "daypass.example.org";

fn site(note: Option<&'static [u8]>) -> Router {
    let issuer: IssuerUrl = "https://daypass.example.org".parse().unwrap();
    let schedule = KeySchedule { max_age_s: Seconds::new(300), sequence: 1 };
    let tiles = note.map(|_| Tiles::new(Arc::new(|tile| Box::pin(async move { read(tile) }))));
    let shown = LogShown { checkpoint: Arc::new(move || note.map(Arc::from)), tiles: tiles.clone() };
    let site = Site {
        documents: ArcSwap::from_pointee(documents(&issuer, &[], schedule)),
        revoked: ArcSwap::default(),
        checkpoint: Arc::new(move || note.map(Arc::from)),
        tiles,
        logs: BTreeMap::from([("2026h1".to_owned(), shown)]),
        authorities: Authorities::new(&issuer, []),
    };
    router(Arc::new(site), Router::new())
}

/// A log of 700 entries whose hashes are all the same, and whose higher levels cannot be read.
fn read(tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
    match tile.holds() {
        Holds::Hashes(0) => Ok(tile.is_of(700).then(|| vec![7; 32 * usize::from(tile.width())])),
        _ => Err(StoreError::Unavailable("it does not answer".into())),
    }
}

fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn answer(request: Request) -> Response {
    site(Some(b"a note\n")).oneshot(request).await.unwrap()
}

async fn status(method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    answer(asked(method, path, headers)).await.status().as_u16()
}

async fn content(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test]
async fn what_is_published_is_read_and_nothing_else_is_done() {
    let host = ("host", HOST);
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/jwks",
        "/bundle",
        "/checkpoint",
    ] {
        assert_eq!(status("GET", path, &[host]).await, 200, "{path}");
        let head = answer(asked("HEAD", path, &[host])).await;
        assert_eq!(head.status(), 200, "{path}");
        assert!(content(head).await.is_empty(), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
            assert_eq!(status(method, path, &[host]).await, 405, "{method} {path}");
        }
    }
    for path in ["/", "/jwks/", "//jwks", "/JWKS", "/token", "/introspect", "/entries", "/jwks%2f"] {
        assert_eq!(status("GET", path, &[host]).await, 404, "{path}");
    }
}

#[tokio::test]
async fn tiles_are_hashes_that_caches_may_keep_for_ever() {
    let host = ("host", HOST);
    for (path, bytes) in [
        ("/tile/0/000", 8_192),
        ("/tile/0/002.p/188", 6_016),
        ("/tile/0/002.p/1", 32),
        ("/evidence/2026h1/tile/0/000", 8_192),
    ] {
        let tile = answer(asked("GET", path, &[host])).await;
        assert_eq!(tile.status(), 200, "{path}");
        assert_eq!(tile.headers()["content-type"], "application/octet-stream");
        assert_eq!(tile.headers()["cache-control"], "public, max-age=31536000, immutable");
        let etag = tile.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(content(tile).await.len(), bytes, "{path}");
        assert_eq!(status("GET", path, &[host, ("if-none-match", &etag)]).await, 304, "{path}");
    }
    for path in
        ["/tile/0/002", "/tile/0/002.p/189", "/tile/0/000?", "/tile/0/0", "/tile/0/%30%30%30", "/tile"]
    {
        let none = answer(asked("GET", path, &[host])).await;
        assert_eq!(
            (none.status().as_u16(), &none.headers()["cache-control"]),
            (404, &"no-store".parse().unwrap()),
            "{path}"
        );
    }
    let failed = answer(asked("GET", "/tile/1/000.p/2", &[host])).await;
    assert_eq!(
        (failed.status().as_u16(), failed.headers()["cache-control"].as_bytes()),
        (503, &b"no-store"[..])
    );
}

#[tokio::test]
async fn entries_are_no_tiles_and_tiles_are_served_on_demand_only() {
    let host = ("host", HOST);
    let entries = [
        "/tile/entries/000",
        "/tile/entries/002.p/188",
        "/tile/data/000",
        "/evidence/2026h1/tile/entries/000",
        "/evidence/2026h1/0/000",
    ];
    for path in entries {
        assert_eq!(status("GET", path, &[host]).await, 404, "{path}");
    }
    for path in ["/tile/0/000", "/evidence/2026h1/tile/0/000", "/evidence/2026h1/checkpoint"] {
        let closed = site(None).oneshot(asked("GET", path, &[host])).await.unwrap();
        assert_eq!(closed.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn each_log_has_a_checkpoint_under_its_own_name() {
    let host = ("host", HOST);
    let note = answer(asked("GET", "/evidence/2026h1/checkpoint", &[host])).await;
    assert_eq!((note.status().as_u16(), note.headers()["cache-control"].as_bytes()), (200, &b"no-cache"[..]));
    for path in ["/evidence/2026h2/checkpoint", "/evidence/checkpoint", "/evidence/2026h1", "/evidence/"] {
        assert_eq!(status("GET", path, &[host]).await, 404, "{path}");
    }
}

#[tokio::test]
async fn both_discovery_documents_are_one_and_answers_are_hardened() {
    let host = ("host", HOST);
    let oidc = answer(asked("GET", "/.well-known/openid-configuration", &[host])).await;
    let oauth = answer(asked("GET", "/.well-known/oauth-authorization-server", &[host])).await;
    assert_eq!(oidc.headers()["content-type"], "application/json");
    assert_eq!(oidc.headers()["cache-control"], "public, max-age=300");
    assert_eq!(oidc.headers()["x-content-type-options"], "nosniff");
    assert_eq!(oidc.headers()["content-security-policy"], "default-src 'none'");
    assert_eq!(content(oidc).await, content(oauth).await);
}

#[tokio::test]
async fn a_copy_that_is_still_good_is_not_sent_again() {
    let host = ("host", HOST);
    for path in ["/jwks", "/checkpoint"] {
        let first = answer(asked("GET", path, &[host])).await;
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        let again = answer(asked("GET", path, &[host, ("if-none-match", &etag)])).await;
        assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &first.headers()["etag"]));
        assert!(content(again).await.is_empty());
        assert_eq!(status("GET", path, &[host, ("range", "bytes=0-1")]).await, 200, "{path}");
    }
}

#[tokio::test]
async fn a_foreign_host_is_misdirected_and_an_unclear_one_refused() {
    for own in [HOST, "DAYPASS.example.org", "daypass.example.org:443"] {
        assert_eq!(status("GET", "/jwks", &[("host", own)]).await, 200, "{own}");
    }
    for foreign in ["evil.example", "daypass.example.org:8443", "daypass.example.org.evil.example", ""] {
        assert_eq!(status("GET", "/jwks", &[("host", foreign)]).await, 421, "{foreign}");
    }
    assert_eq!(status("GET", "/jwks", &[]).await, 400, "no host");
    assert_eq!(status("GET", "/jwks", &[("host", HOST), ("host", HOST)]).await, 400, "two hosts");
    assert_eq!(
        status("GET", "https://daypass.example.org/jwks", &[("host", HOST)]).await,
        400,
        "absolute form"
    );
}

#[tokio::test]
async fn over_http2_the_authority_counts_and_a_host_must_agree() {
    let over_http2 = |uri: &str, headers: &[(&str, &str)]| {
        let mut request = asked("GET", uri, headers);
        *request.version_mut() = Version::HTTP_2;
        answer(request)
    };
    let own = "https://daypass.example.org/jwks";
    assert_eq!(over_http2(own, &[]).await.status(), 200);
    assert_eq!(over_http2(own, &[("host", HOST)]).await.status(), 200);
    assert_eq!(over_http2(own, &[("host", "evil.example")]).await.status(), 400);
    assert_eq!(over_http2("https://evil.example/jwks", &[]).await.status(), 421);
    assert_eq!(over_http2("/jwks", &[("host", HOST)]).await.status(), 400);
}

#[tokio::test]
async fn a_forwarding_header_changes_nothing() {
    let path = "/.well-known/openid-configuration";
    let plain = content(answer(asked("GET", path, &[("host", HOST)])).await).await;
    let forwarded = [
        ("host", HOST),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "host=evil.example"),
        ("x-forwarded-client-cert", "Hash=00"),
    ];
    assert_eq!(content(answer(asked("GET", path, &forwarded)).await).await, plain);
}

#[tokio::test]
async fn content_is_refused_where_none_belongs() {
    for header in [("content-length", "5"), ("content-length", "00"), ("transfer-encoding", "chunked")] {
        assert_eq!(status("GET", "/jwks", &[("host", HOST), header]).await, 400, "{header:?}");
    }
    assert_eq!(status("GET", "/jwks", &[("host", HOST), ("content-length", "0")]).await, 200);
}

#[tokio::test]
async fn no_checkpoint_is_published_unless_wanted() {
    let response = site(None).oneshot(asked("GET", "/checkpoint", &[("host", HOST)])).await.unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn on_the_wire_one_request_is_one_request() {
    let bench = Bench::serving(Speaks::Http1And2, Limits::default(), site(None)).await;
    let host = "Host: daypass.example.org\r\n";
    let close = "Connection: close\r\n";
    let smuggled = "GET /bundle HTTP/1.1\r\nHost: daypass.example.org\r\n\r\n";
    for (request, status) in [
        (format!("GET /jwks HTTP/1.1\r\n{host}{close}\r\n"), "200"),
        (format!("GET /jwks HTTP/1.1\r\nHost: evil.example\r\n{close}\r\n"), "421"),
        (format!("GET https://daypass.example.org/jwks HTTP/1.1\r\n{host}\r\n"), "400"),
        (format!("GET /jwks HTTP/1.1\r\n{host}{host}\r\n"), "400"),
        (format!("GET /jwks HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()), "400"),
        (
            format!(
                "GET /jwks HTTP/1.1\r\n{host}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            "400",
        ),
        (
            format!("GET /jwks HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            "400",
        ),
        (format!("GET /jwks HTTP/1.1\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), "400"),
    ] {
        let answer = bench.plain_bytes(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request}: {answer}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_kept_by_caches() {
    for path in ["/token", "/nowhere"] {
        assert_eq!(
            answer(asked("GET", path, &[("host", HOST)])).await.headers()["cache-control"],
            "no-store"
        );
    }
}
