//! What is no request to the OAuth endpoints: refused before anybody is asked for, and nothing is spent or kept.

use daypass_broker::dev::caller::possession;
use daypass_tests::harness::{CI, Deployment, EXCHANGE, ID_TOKEN, JWT, NIGHTLY, Web, encoded, exchange};

const SCOPE: &str = "task:post-invoices";

#[tokio::test]
async fn a_request_with_one_parameter_spoiled_is_refused_and_spends_nothing() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment, Some(&possession().unwrap()), true);
    let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let good = exchange(&proof, SCOPE);
    let with = |name: &'static str, value: &'static str| {
        let mut form: Vec<_> = good.iter().copied().filter(|(known, _)| *known != name).collect();
        form.push((name, value));
        form
    };
    let long = format!("task:{}", "x".repeat(200));
    let long: &'static str = Box::leak(long.into_boxed_str());
    let malformed = "invalid_request";
    let rows = [
        (with("grant_type", ""), malformed),
        (with("grant_type", "password"), "unsupported_grant_type"),
        (with("grant_type", "refresh_token"), "unsupported_grant_type"),
        (with("grant_type", "authorization_code"), "unsupported_grant_type"),
        (with("grant_type", &EXCHANGE[1..]), "unsupported_grant_type"),
        (with("grant_type", "client_credentials"), malformed),
        (with("subject_token", ""), malformed),
        (with("subject_token", "x"), malformed),
        (with("subject_token_type", ""), malformed),
        (with("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), malformed),
        (with("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"), malformed),
        (with("actor_token", "x"), malformed),
        (with("actor_token_type", JWT), malformed),
        (with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), malformed),
        (with("requested_token_type", ID_TOKEN), malformed),
        (with("scope", ""), malformed),
        (with("scope", "invoice:write"), malformed),
        (with("scope", "task:"), "invalid_scope"),
        (with("scope", long), "invalid_scope"),
        (with("scope", "task:post-invoices task:read-invoices"), "invalid_scope"),
        (with("scope", "task:post-invoices Invoice:Write"), "invalid_scope"),
        (with("resource", "ledger.example.org"), "invalid_target"),
        (with("resource", "/ledger"), "invalid_target"),
        (with("resource", "https://ledger.example.org#x"), "invalid_target"),
        (with("audience", "two words"), "invalid_target"),
        (with("authorization_details", "{}"), "invalid_authorization_details"),
        (with("authorization_details", "[]"), "invalid_authorization_details"),
        (with("authorization_details", "[{\"type\":\"payment\"}]"), "invalid_authorization_details"),
        (with("authorization_details", "[{\"type\":\"task\"}]"), "invalid_authorization_details"),
        (
            with(
                "authorization_details",
                "[{\"type\":\"task\",\"identifier\":\"post-invoices\",\"privileges\":[]}]",
            ),
            "invalid_authorization_details",
        ),
        (
            with(
                "authorization_details",
                "[{\"type\":\"task\",\"identifier\":\"a\"},{\"type\":\"task\",\"identifier\":\"b\"}]",
            ),
            "invalid_authorization_details",
        ),
        (
            with("authorization_details", "[{\"type\":\"task\",\"identifier\":\"a\",\"identifier\":\"b\"}]"),
            "invalid_authorization_details",
        ),
        (
            with("authorization_details", "[{\"type\":\"task\",\"identifier\":\"read-invoices\"}]"),
            "invalid_scope",
        ),
        (
            with(
                "authorization_details",
                "[{\"type\":\"task\",\"identifier\":\"post-invoices\",\"resources\":[\"eu/../us\"]}]",
            ),
            "invalid_authorization_details",
        ),
        (with("client_id", "Not An Identity"), "invalid_client"),
        (with("client_secret", "x"), "invalid_client"),
        (with("client_assertion", "x"), "invalid_client"),
    ];
    for (form, error) in rows {
        let said = web.post("/token", &form).await;
        assert_eq!(said.body["error"], error, "{form:?}: {said:?}");
        assert_eq!(said.status, if error == "invalid_client" { 401 } else { 400 }, "{form:?}");
        assert_eq!(said.headers["cache-control"], "no-store");
        assert!(!said.body.to_string().contains(&proof), "no proof in an answer");
    }
    for twice in ["grant_type", "subject_token", "scope", "authorization_details", "client_id", "unknown"] {
        let form = [good.clone(), vec![(twice, "x"), (twice, "x")]].concat();
        assert_eq!(web.post("/token", &form).await.refusal(), (400, malformed, "MALFORMED"), "{twice} twice");
    }
    let more = [good, vec![("nonce", "whatever a client may add"), ("state", "")]].concat();
    assert_eq!(web.post("/token", &more).await.status, 200, "and what is not known is passed over");
}

#[tokio::test]
async fn a_request_is_a_form_in_a_post_and_nothing_else() {
    let deployment = Deployment::start().await;
    for http2 in [true, false] {
        let web = Web::of(&deployment, Some(&possession().unwrap()), http2);
        let proof = deployment.organisation.token(CI, NIGHTLY).unwrap();
        let (url, form) = (format!("{}/token", web.url), encoded(&exchange(&proof, SCOPE)));
        let post = || web.client.post(&url);
        let json = r#"{"grant_type":"client_credentials"}"#;
        let filled = |bytes: usize| format!("{form}&x={}", "y".repeat(bytes - form.len() - 3));
        let rows = [
            ("GET", web.client.get(format!("{url}?{form}")), 405),
            ("GET without a query", web.client.get(&url), 405),
            ("PUT", web.client.put(&url), 405),
            ("OPTIONS", web.client.request(http::Method::OPTIONS, &url), 405),
            ("a proof in the URL", web.client.post(format!("{url}?{form}")), 400),
            ("a query beside the form", web.client.post(format!("{url}?x=1")).body(form.clone()), 400),
            ("JSON", post().header("content-type", "application/json").body(json), 415),
            ("text", post().header("content-type", "text/plain").body(form.clone()), 415),
            (
                "a form in Latin 1",
                post()
                    .header("content-type", "application/x-www-form-urlencoded;charset=iso-8859-1")
                    .body(form.clone()),
                415,
            ),
            ("compressed", post().header("content-encoding", "gzip").body(form.clone()), 415),
            ("a page in a browser", post().header("origin", "https://evil.example").body(form.clone()), 400),
            ("a password", post().basic_auth("a", Some("b")).body(form.clone()), 401),
            ("two proofs", post().bearer_auth(&proof).body(form.clone()), 401),
            ("64 KiB and more", post().body(filled(64 * 1024 + 1)), 413),
            ("nothing", post(), 400),
            ("not UTF-8", post().body(format!("{form}&x=%ff")), 400),
            ("NUL", post().body(format!("{form}&x=%00")), 400),
            ("another path", web.client.post(format!("{url}/")).body(""), 404),
            ("64 KiB", post().body(filled(64 * 1024)), 200),
        ];
        for (what, request, status) in rows {
            let said = web.send(request).await;
            assert_eq!(said.status, status, "{what}: {said:?}");
            assert_eq!(said.headers["cache-control"], "no-store", "{what}");
            assert!(status == 200 || said.body.get("access_token").is_none(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_length_that_could_be_disputed_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let deployment = Deployment::start().await;
    let mut tls = daypass_broker::dev::caller::client_config(&deployment.listener_ca, None).unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let host = deployment.settings.issuer.authority().to_owned();
    let head = format!(
        "POST /token HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    );
    let smuggled = format!("GET /jwks HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for (length, body) in [
        ("transfer-encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}")),
        ("content-length: 4\r\ntransfer-encoding: chunked\r\n", format!("0\r\n\r\n{smuggled}")),
        ("transfer-encoding: chunked\r\ncontent-length: 4\r\n", format!("0\r\n\r\n{smuggled}")),
        ("content-length: 1\r\ncontent-length: 2\r\n", format!("x{smuggled}")),
        ("content-length: +1\r\n", format!("x{smuggled}")),
    ] {
        let stream =
            tokio::net::TcpStream::connect(("127.0.0.1", deployment.broker().web.port())).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{length}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{length}: {answer}");
    }
}
