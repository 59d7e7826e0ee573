//! Every method of every service, walked from the descriptor: none can be forgotten.

use daypass_broker::dev::caller::{Caller, possession};
use daypass_proto::FILE_DESCRIPTOR_SET;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, Refused};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic_prost::ProstCodec;

/// The path of each method in `daypass.v1`.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.into_iter().filter(|file| file.package() == "daypass.v1");
    let services = files.flat_map(|file| file.service);
    services
        .flat_map(|service| {
            let paths = service
                .method
                .iter()
                .map(|method| format!("/daypass.v1.{}/{}", service.name(), method.name()));
            paths.collect::<Vec<_>>()
        })
        .collect()
}

/// Calls a method with an empty message. A method that streams answers first with its status or a message.
/// Up to the first message of the answer: a stream may have no end.
async fn call(caller: &Caller, path: &str) -> Result<(), Refused> {
    let mut client = tonic::client::Grpc::new(caller.channel());
    client.ready().await.unwrap();
    let request = caller.request(()).unwrap();
    let path: PathAndQuery = path.parse().unwrap();
    let answered = client.server_streaming(request, path, ProstCodec::<(), ()>::default()).await;
    answered.map_err(Refused::from)?.get_mut().message().await.map(drop).map_err(Refused::from)
}

#[tokio::test]
async fn every_method_refuses_a_call_without_a_proof() {
    let deployment = Deployment::start().await;
    let fresh = possession().unwrap();
    let expired = deployment.forge(CI, NIGHTLY).with(|_, claims| drop(claims.insert("exp".into(), 1.into())));
    let strangers = [
        ("nothing", deployment.connect(None).await),
        ("a certificate that nobody vouches for", deployment.connect(Some(&fresh)).await),
        ("a token that is none", deployment.bearer("nothing").await),
        ("a token that has ended", deployment.bearer(expired).await),
    ];
    let methods = methods();
    assert!(methods.len() > 20, "{methods:?}");
    for path in &methods {
        for (shown, stranger) in &strangers {
            let refused = call(stranger, path).await.unwrap_err();
            assert_eq!(refused.code, Code::Unauthenticated, "{path} with {shown}: {refused:?}");
            assert_eq!(refused.reason, "PROOF_REFUSED", "{path} with {shown}");
            assert!(!refused.request_id.is_empty(), "{path} with {shown}");
        }
    }
}

#[tokio::test]
async fn what_is_no_method_is_no_way_around_the_proof() {
    let deployment = Deployment::start().await;
    let (stranger, operator) = (deployment.connect(None).await, deployment.operator().await);
    let paths = [
        "/daypass.v1.CredentialService/Renew",
        "/daypass.v1.CredentialService/issue",
        "/daypass.v1.CredentialService/Issue/",
        "/daypass.v1.CredentialService//Issue",
        "/Daypass.v1.CredentialService/Issue",
        "/daypass.v1.AdminService/Issue",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Healthy/Check",
        "/x/grpc.health.v1.Health/Check",
        "/",
    ];
    for path in paths {
        assert_eq!(call(&stranger, path).await.unwrap_err().code, Code::Unauthenticated, "{path}");
        assert_eq!(call(&operator, path).await.unwrap_err().code, Code::Unimplemented, "{path}");
    }
}

/// What the API names and this release does not offer: the list shrinks.
const NOT_YET: &[&str] = &[
    "/daypass.v1.EvidenceService/Ask",
    "/daypass.v1.EvidenceService/Export",
    "/daypass.v1.GovernanceService/Decide",
    "/daypass.v1.GovernanceService/ListPending",
    "/daypass.v1.GovernanceService/RecordReview",
    "/daypass.v1.RegistryService/GetBundle",
    "/daypass.v1.RegistryService/ListObjects",
    "/daypass.v1.RegistryService/PlanBundle",
    "/daypass.v1.RegistryService/ProposeBundle",
];

#[tokio::test]
async fn what_is_not_offered_yet_says_so_and_nothing_else_does() {
    let deployment = Deployment::start().await;
    let operator = deployment.operator().await;
    let mut found = Vec::new();
    for path in methods() {
        if call(&operator, &path).await.is_err_and(|refused| refused.reason == "UNIMPLEMENTED") {
            found.push(path);
        }
    }
    found.sort();
    assert_eq!(found, NOT_YET);
}

#[tokio::test]
async fn what_is_open_to_all_takes_small_messages_only() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let deployment = Deployment::start().await;
    let mut health = HealthClient::new(deployment.connect(None).await.channel());
    let asking = |len: usize| HealthCheckRequest { service: "x".repeat(len) };
    assert_eq!(health.check(asking(512)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(health.check(asking(2048)).await.unwrap_err().code(), Code::OutOfRange);
}
