//! No proof and no token is in what a broker writes by itself: its log of operations, its metrics, its entries, or what it
//! tells an operator of a refusal. Wherever a caller put it.

use std::io;
use std::sync::{Arc, Mutex};

use daypass_broker::dev::caller::possession;
use daypass_tests::harness::{
    CI, Deployment, EXCHANGE, ID_TOKEN, NIGHTLY, Web, exchange, issue, run, task, token_of,
};
use tracing_subscriber::fmt::MakeWriter;

/// What was logged, whole.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_proof_and_a_token_are_written_nowhere_whichever_way_they_come() {
    let kept = Kept::default();
    let logs = tracing_subscriber::fmt()
        .with_env_filter("daypass_broker=trace,daypass_core=trace,daypass_verify=trace")
        .with_writer(kept.clone());
    let _logging = tracing::subscriber::set_default(logs.finish());
    // Where there is one subscriber alone, a place in the code that another test's thread meets first is asked of that
    // thread's, which is none, and is silent for all.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let deployment = Deployment::start().await;
    let certificate = possession().unwrap();
    let web = Web::of(&deployment, Some(&certificate), true);
    let proof = || deployment.organisation.token(CI, NIGHTLY).unwrap();
    let (spent, over_grpc, bad, early) = (proof(), proof(), format!("{}x", proof()), proof());
    let mut tokens = vec![spent.clone(), over_grpc.clone(), bad.clone(), early.clone()];
    let mut requests = Vec::new();

    let caller = deployment.connect(Some(&certificate)).await.with_token(over_grpc);
    tokens.push(token_of(&issue(&caller, task("post-invoices")).await.unwrap()).to_owned());
    let said = web.post("/token", &exchange(&spent, "task:post-invoices")).await;
    let token = said.token().to_owned();
    for form in [
        exchange(&spent, "task:post-invoices"),
        exchange(&bad, "task:post-invoices"),
        exchange(&early, "task:deploy-web"),
        exchange(&early, &early),
        vec![("grant_type", EXCHANGE), ("subject_token", &token), ("subject_token_type", ID_TOKEN)],
        vec![("grant_type", &early)],
        vec![("grant_type", "client_credentials"), ("client_id", &early)],
        [exchange(&early, "task:post-invoices"), vec![("audience", &token)]].concat(),
        [exchange(&early, "task:post-invoices"), vec![("authorization_details", &token)]].concat(),
    ] {
        requests.push(web.post("/token", &form).await);
    }
    requests.push(web.post_by(&early, "/introspect", &[("token", &token)]).await);
    requests.push(web.post_by(&bad, "/introspect", &[("token", &token)]).await);
    requests.push(web.send(web.client.post(format!("{}/token?subject_token={early}", web.url))).await);
    tokens.push(token);

    let mut written = vec![String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()];
    assert!(written[0].contains("a proof was refused"), "the log of operations is looked at: {}", written[0]);
    for said in requests {
        let id = said.headers["daypass-request-id"].to_str().unwrap();
        let request = daypass_proto::v1::ExplainRequest { request_id: id.into() };
        let operator = deployment.operator().await;
        let explained = operator.evidence().explain(operator.request(request).unwrap()).await;
        written.extend(explained.ok().map(|explained| format!("{explained:?}")));
    }
    let metrics = format!("http://127.0.0.1:{}/metrics", deployment.broker().ops.port());
    written.push(run("curl", ["--silent", "--fail", "--noproxy", "*", &metrics]).await.stdout);
    written.extend(deployment.entries().await.iter().map(|(_, entry)| format!("{entry:?}")));
    for secret in tokens.iter().flat_map(|token| token.split('.').skip(1)) {
        let part = &secret[..32.min(secret.len())];
        let found = written.iter().find(|text| text.contains(part));
        assert!(found.is_none(), "{part} in {}", found.unwrap());
    }
}
