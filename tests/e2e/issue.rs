//! One proof, one task, one credential.

use daypass_tests::harness::{Deployment, claims_of, issue, task, token_of};

#[tokio::test]
async fn a_proven_workload_gets_a_credential_for_its_task() {
    let deployment = Deployment::start().await;
    for caller in [deployment.job().await, deployment.service().await] {
        let answer = issue(&caller, task("post-invoices")).await.unwrap();
        let (header, claims) = claims_of(token_of(&answer));
        assert_eq!(header["typ"], "at+jwt");
        assert_eq!(claims["sub"], "spiffe://example.org/prod/billing/nightly");
        assert_eq!(claims["jti"], answer.credential_id);
    }
}
