//! What is no request: refused before anything is decided, and nobody else notices.

use daypass_broker::dev::caller::{Caller, possession};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, issue, task};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::Code;
use tonic::body::Body;

const ISSUE: &str = "/daypass.v1.CredentialService/Issue";

/// Sends a body as it is; the HTTP status, and the gRPC status where there is one.
async fn send(
    caller: &Caller,
    change: impl FnOnce(&mut http::Request<Body>),
    body: &[u8],
) -> (u16, Option<Code>) {
    let mut request = http::Request::post(format!("https://localhost{ISSUE}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::from(body.to_vec())))
        .unwrap();
    let proof = caller.request(()).unwrap();
    request.headers_mut().extend(proof.metadata().clone().into_headers());
    change(&mut request);
    let mut channel = caller.channel();
    std::future::poll_fn(|context| tower_service(&mut channel, context)).await.unwrap();
    let response = tonic::client::GrpcService::call(&mut channel, request).await;
    let Ok(response) = response else { return (0, None) };
    let (parts, body) = response.into_parts();
    let code = |headers: &HeaderMap| {
        let text = headers.get("grpc-status")?.to_str().ok()?;
        Some(Code::from(text.parse::<i32>().ok()?))
    };
    let trailers = body.collect().await.ok().and_then(|collected| collected.trailers().cloned());
    (parts.status.as_u16(), code(&parts.headers).or_else(|| code(&trailers?)))
}

fn tower_service(
    channel: &mut tonic::transport::Channel,
    context: &mut std::task::Context<'_>,
) -> std::task::Poll<Result<(), tonic::transport::Error>> {
    tonic::client::GrpcService::<Body>::poll_ready(channel, context)
}

/// A message in its frame (length-prefixed, not compressed).
fn frame(message: &[u8]) -> Vec<u8> {
    framed(0, u32::try_from(message.len()).unwrap(), message)
}

fn framed(compressed: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[compressed], &length.to_be_bytes()[..], message].concat()
}

fn good() -> Vec<u8> {
    task("post-invoices").encode_to_vec()
}

#[tokio::test]
async fn a_message_is_the_methods_own_or_refused() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let task_field = |bytes: &[u8]| [&[0x0a, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let after_good = |bytes: &[u8]| frame(&[&good()[..], bytes].concat());
    let nested = |depth: usize| vec![0x7b; depth];
    let large = pb::IssueRequest { run: "x".repeat(70 * 1024), ..task("post-invoices") }.encode_to_vec();
    let rows = [
        ("an empty body", Vec::new(), Code::Internal),
        ("text", frame(b"task=post-invoices"), Code::InvalidArgument),
        ("invalid UTF-8 in a text", frame(&task_field(b"post-\xff")), Code::InvalidArgument),
        ("a field that is cut off", frame(&[0x0a, 200]), Code::InvalidArgument),
        ("a number that never ends", frame(&[0xff; 11]), Code::InvalidArgument),
        ("field number 0", after_good(&[0x00, 0x01]), Code::InvalidArgument),
        ("a field of another type", frame(&[0x08, 0x01]), Code::InvalidArgument),
        ("groups 10,000 deep", after_good(&nested(10_000)), Code::InvalidArgument),
        ("an unknown profile", after_good(&[0x3a, 0x02, 0x08, 0x63]), Code::InvalidArgument),
        ("70 KiB", frame(&large), Code::ResourceExhausted),
        ("a length of 4 GiB", framed(0, u32::MAX, &good()), Code::ResourceExhausted),
        ("said to be compressed", framed(1, u32::try_from(good().len()).unwrap(), &good()), Code::Internal),
        ("a flag that is none", framed(7, u32::try_from(good().len()).unwrap(), &good()), Code::Internal),
    ];
    let mut wrong = Vec::new();
    for (what, body, expected) in rows {
        let (status, code) = send(&service, |_| {}, &body).await;
        if code != Some(expected) {
            wrong.push(format!("{what}: HTTP {status}, {code:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(send(&service, |_| {}, &frame(&good())).await, (200, Some(Code::Ok)), "the good one");
    assert_eq!(
        send(&service, |_| {}, &after_good(&[0xfa, 0x3e, 0x01, 0x78])).await.1,
        Some(Code::Ok),
        "a later field"
    );
}

#[tokio::test]
async fn a_call_is_grpc_over_http2_or_refused() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    type Change = fn(&mut http::Request<Body>);
    let rows: [(&str, Change); 6] = [
        ("text, as a page in a browser can send it", |request| {
            drop(request.headers_mut().insert("content-type", "text/plain".parse().unwrap()))
        }),
        ("no content type", |request| drop(request.headers_mut().remove("content-type"))),
        ("a form", |request| {
            drop(
                request
                    .headers_mut()
                    .insert("content-type", "application/x-www-form-urlencoded".parse().unwrap()),
            )
        }),
        ("gRPC for browsers", |request| {
            drop(request.headers_mut().insert("content-type", "application/grpc-web".parse().unwrap()))
        }),
        ("a compression that nobody offered", |request| {
            drop(request.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap()))
        }),
        ("GET", |request| *request.method_mut() = http::Method::GET),
    ];
    for (what, change) in rows {
        let (status, code) = send(&service, change, &frame(&good())).await;
        assert!(
            status != 200 || code.is_some_and(|code| code != Code::Ok),
            "{what}: HTTP {status}, {code:?}"
        );
    }
    let issued = deployment
        .entries()
        .await
        .into_iter()
        .filter(|(_, entry)| entry.envelope.kind == "credential.issued");
    assert_eq!(issued.count(), 0);
}

#[tokio::test]
async fn a_proof_comes_in_one_header_of_one_form() {
    let deployment = Deployment::start().await;
    let token = deployment.organisation.token(CI, NIGHTLY).unwrap();
    let caller = deployment.connect(Some(&possession().unwrap())).await;
    let bearer = |scheme: &str| format!("{scheme} {token}");
    let rows = [
        ("no scheme", vec![token.clone()]),
        ("another scheme", vec![bearer("Basic")]),
        ("DPoP", vec![bearer("DPoP")]),
        ("twice", vec![bearer("Bearer"), bearer("Bearer")]),
        ("two tokens", vec![bearer("Bearer"), "Bearer x.y.z".into()]),
        ("two tokens in one header", vec![format!("{}, {}", bearer("Bearer"), bearer("Bearer"))]),
        ("two spaces", vec![bearer("Bearer ")]),
        ("a space after it", vec![format!("{} x", bearer("Bearer"))]),
        ("the scheme alone", vec!["Bearer".into()]),
        ("an empty token", vec!["Bearer ".into()]),
        ("an empty header", vec![String::new()]),
    ];
    for (what, headers) in rows {
        let change = |request: &mut http::Request<Body>| {
            for value in headers {
                request.headers_mut().append("authorization", value.parse().unwrap());
            }
        };
        let (_, code) = send(&caller, change, &frame(&good())).await;
        assert_eq!(code, Some(Code::Unauthenticated), "{what}");
    }
    let lower = |request: &mut http::Request<Body>| {
        request.headers_mut().append("authorization", bearer("bearer").parse().unwrap());
    };
    assert_eq!(
        send(&caller, lower, &frame(&good())).await.1,
        Some(Code::Ok),
        "the scheme is not case-sensitive"
    );
}

#[tokio::test]
async fn headers_beyond_8_kib_cost_only_their_own_call() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let large: fn(&mut http::Request<Body>) = |request| {
        for n in 0..10 {
            let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
            request.headers_mut().insert(name, "x".repeat(1024).parse().unwrap());
        }
    };
    let many: fn(&mut http::Request<Body>) = |request| {
        for n in 0..10_000 {
            let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
            request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
        }
    };
    for change in [large, many] {
        assert_ne!(send(&service, change, &frame(&good())).await.1, Some(Code::Ok));
    }
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_the_log_whole() {
    let mut deployment = Deployment::start().await;
    for n in 0..32_u64 {
        let service = deployment.service().await;
        let call = tokio::spawn(async move { issue(&service, task("post-invoices")).await });
        tokio::time::sleep(std::time::Duration::from_micros(n * 150)).await;
        call.abort();
        drop(call.await);
    }
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let report = deployment.copied().open().unwrap().started.report;
    assert!(report.is_clean() && report.issued >= 1, "{report:?}");
}

#[tokio::test]
async fn a_message_that_never_comes_is_given_up_whoever_sends_it() {
    type Nothing = Result<hyper::body::Frame<bytes::Bytes>, tonic::Status>;
    let deployment = Deployment::start().await;
    let (stranger, service) = (deployment.connect(None).await, deployment.service().await);
    let silent = |path: &'static str| {
        move |request: &mut http::Request<Body>| {
            *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
            let nothing = futures::stream::pending::<Nothing>();
            *request.body_mut() = Body::new(http_body_util::StreamBody::new(nothing));
        }
    };
    let (health, issuing) = futures::join!(
        send(&stranger, silent("/grpc.health.v1.Health/Check"), &[]),
        send(&service, silent(ISSUE), &[])
    );
    assert_eq!((health.1, issuing.1), (Some(Code::Unavailable), Some(Code::Unavailable)));
}
