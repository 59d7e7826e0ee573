use http::Request;
use tower::ServiceExt as _;

use super::*;
use crate::source::tests::Desk;

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_token_goes_to_one_service_over_tls_and_nowhere_else() {
    let desk = Desk::open(600_000);
    assert!(TokenLayer::to(desk.source(), &url("http://ledger.example.org")).is_err());
    let layer = TokenLayer::to(desk.source(), &url("https://ledger.example.org:8443")).unwrap();
    let echo = tower::service_fn(|request: Request<()>| async move {
        Ok::<_, std::convert::Infallible>(request.headers().get(AUTHORIZATION).cloned())
    });
    let service = tower::Layer::layer(&layer, echo);
    for (to, goes) in [
        ("/daypass.v1/Method", true),
        ("https://ledger.example.org:8443/x", true),
        ("http://ledger.example.org:8443/x", false),
        ("https://ledger.example.org/x", false),
        ("https://ledger.example.org.evil.example:8443/x", false),
        ("https://evil.example:8443/x", false),
    ] {
        let answer = service.clone().oneshot(Request::builder().uri(to).body(()).unwrap()).await;
        let value = answer.map(|value| value.unwrap());
        assert_eq!(value.as_ref().is_ok_and(HeaderValue::is_sensitive), goes, "{to}: {value:?}");
        assert!(!format!("{value:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_request_without_a_fresh_token_is_not_sent() {
    let desk = Desk::open(600_000);
    desk.refuse(crate::source::tests::refused("SUSPENDED"));
    let layer = TokenLayer::to(desk.source(), &url("https://ledger.example.org")).unwrap();
    let never =
        tower::service_fn(|_: Request<()>| async move { Err::<(), _>(std::io::Error::other("sent")) });
    let error = tower::Layer::layer(&layer, never).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error.downcast_ref::<Error>().unwrap().refusal().unwrap().reason, "SUSPENDED");
}

#[tokio::test]
async fn a_token_is_put_on_no_request_in_the_clear() {
    let source = Desk::open(600_000).source();
    let mut request = reqwest::Request::new(reqwest::Method::GET, url("http://ledger.example.org"));
    assert!(source.put_on(&mut request).await.is_err() && request.headers().is_empty());
    *request.url_mut() = url("https://ledger.example.org");
    source.put_on(&mut request).await.unwrap();
    assert!(request.headers()[AUTHORIZATION].is_sensitive());
}
