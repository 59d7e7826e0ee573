//! The agent's SPIFFE Workload API, as stock clients see it.

use std::fs;
use std::path::{Path, PathBuf};

use daypass_proto::spiffe::X509svidRequest;
use daypass_proto::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use daypass_tests::harness::{Agent, Deployment, eventually, python, run};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use spiffe::WorkloadApiClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const FRONTEND: &str = "spiffe://example.org/prod/web/frontend";
const AUDIENCE: &str = "mesh.example.org";

/// An agent that gives the shop's frontend its identity at a socket.
async fn frontend(deployment: &Deployment, ttl: &str, who: &str) -> (Agent, PathBuf) {
    let (socket, proof) = (deployment.folder().join("workload.sock"), deployment.folder().join("pod.token"));
    fs::write(&proof, deployment.organisation.token("cluster", "prod/web/frontend").unwrap()).unwrap();
    let rest = format!(
        "[[credential]]\ntask = \"mesh-identity\"\nname = \"mesh\"\nkind = \"x509-svid\"\nttl = {ttl:?}\n\
         [[credential]]\ntask = \"mesh-identity\"\nname = \"mesh-token\"\nkind = \"jwt-svid\"\nttl = {ttl:?}\n\
         [[socket]]\npath = {socket:?}\nserves = \"workload-api\"\n{who}\n"
    );
    let config = deployment.agent_config_with("frontend", &format!("id_token_file = {proof:?}"), &rest);
    let agent = Agent::start(&config, &[]);
    eventually("the socket", || async { socket.exists() }).await;
    (agent, socket)
}

#[tokio::test]
async fn the_spiffe_crate_follows_certificates_and_verifies_tokens() {
    let deployment = Deployment::start().await;
    let (_agent, socket) = frontend(&deployment, "12s", "").await;
    let client = WorkloadApiClient::connect_to(format!("unix:{}", socket.display())).await.unwrap();
    let mut contexts = client.stream_x509_contexts().await.unwrap();
    let mut serials = Vec::new();
    while serials.len() < 2 {
        let context = contexts.next().await.unwrap().unwrap();
        let svid = context.default_svid().unwrap();
        assert_eq!(svid.spiffe_id().to_string(), FRONTEND);
        assert_eq!(context.bundle_set().len(), 1);
        serials.push(svid.leaf().as_bytes().to_vec());
        serials.dedup();
    }
    let token = client.fetch_jwt_svid([AUDIENCE], None).await.unwrap();
    assert_eq!(token.spiffe_id().to_string(), FRONTEND);
    assert!(!client.fetch_jwt_bundles().await.unwrap().is_empty());
    let valid = client.validate_jwt_token(AUDIENCE, token.token()).await.unwrap();
    assert_eq!(valid.spiffe_id().to_string(), FRONTEND);
    assert!(client.validate_jwt_token("other.example.org", token.token()).await.is_err());
    assert!(client.fetch_jwt_svid(["other.example.org"], None).await.is_err());
}

#[tokio::test]
async fn the_python_package_fetches_and_verifies_all_of_it() {
    let deployment = Deployment::start().await;
    let (_agent, socket) = frontend(&deployment, "2m", "").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/workload_api.py");
    let found = run(python(), [script.to_str().unwrap(), socket.to_str().unwrap(), AUDIENCE]).await;
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found, serde_json::json!({ "x509": FRONTEND, "jwt": FRONTEND, "other": "refused" }));
}

async fn plain(socket: &Path) -> SpiffeWorkloadApiClient<Channel> {
    let socket = socket.to_owned();
    let connect = move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://agent");
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap();
    SpiffeWorkloadApiClient::new(channel)
}

fn with_header(value: Option<&'static str>) -> Request<X509svidRequest> {
    let mut request = Request::new(X509svidRequest {});
    if let Some(value) = value {
        request.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_call_without_the_security_header_or_by_a_stranger_is_refused() {
    let deployment = Deployment::start().await;
    let (agent, socket) = frontend(&deployment, "2m", "").await;
    let mut client = plain(&socket).await;
    for value in [None, Some("false"), Some("True")] {
        let refused = client.fetch_x509svid(with_header(value)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{value:?}");
    }
    let mut answers = client.fetch_x509svid(with_header(Some("true"))).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().svids.len(), 1);
    drop(agent);
    let stranger = format!("uids = [{}]", rustix::process::geteuid().as_raw() + 1);
    let (_agent, socket) = frontend(&deployment, "2m", &stranger).await;
    eventually("the other agent's socket", || async {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    })
    .await;
    let refused = plain(&socket).await.fetch_x509svid(with_header(Some("true"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`uids`"), "{}", refused.message());
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_and_not_after_it() {
    let mut deployment = Deployment::start().await;
    let (_agent, socket) = frontend(&deployment, "4s", "").await;
    let mut answers =
        plain(&socket).await.fetch_x509svid(with_header(Some("true"))).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().svids.len(), 1);
    deployment.stop().await;
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends without a reason"),
            Err(status) => break assert_eq!(status.code(), Code::Unavailable),
        }
    }
}
