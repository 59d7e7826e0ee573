//! The keys of the cluster that the broker runs in: an API server that answers only whom it knows.

use super::*;
use crate::dev::issuer::Behaviour;

/// A broker in a pod, and the API server of its cluster.
struct Pod {
    world: World,
    account: tempfile::TempDir,
}

impl Pod {
    async fn new() -> Self {
        let mut world = World::unfollowed(limits()).await;
        let account = tempfile::tempdir().unwrap();
        let cluster = Cluster {
            keys_url: format!("{}/jwks", world.provider.url()),
            ca: account.path().join("ca.crt"),
            token: account.path().join("token"),
        };
        let (alarms, events) = mpsc::channel(64);
        world.trust = Trust::within(cluster, world.clock.clone(), limits(), alarms);
        world.events = events;
        world.provider.behave(Endpoint::Jwks, Behaviour::Guarded("of the broker".into()));
        let pod = Self { world, account };
        let root = pem::Pem::new("CERTIFICATE", pod.world.provider.root().to_vec());
        pod.write("ca.crt", &pem::encode(&root));
        pod.write("token", "of the broker\n");
        pod
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.account.path().join(name), text).unwrap();
    }

    async fn follow(&self) {
        let url = "https://kubernetes.default.svc.cluster.local";
        self.world.trust.follow_issuers(&issuers([("ci", oidc(url, KeySource::Cluster, Vec::new()))]));
    }
}

#[tokio::test]
async fn the_keys_of_the_own_cluster_come_by_its_ca_and_to_the_brokers_own_account() {
    let pod = Pod::new().await;
    pod.follow().await;
    pod.world.wait_for_keys("ci").await;
    assert!(pod.world.knows_signing_key());
    assert_eq!(pod.world.provider.requests(Endpoint::Discovery), 0, "what it says of itself is not asked");
}

#[tokio::test]
async fn a_token_that_the_kubelet_replaced_is_the_one_that_is_shown() {
    let pod = Pod::new().await;
    pod.follow().await;
    pod.world.wait_for_keys("ci").await;
    pod.world.provider.behave(Endpoint::Jwks, Behaviour::Guarded("its next".into()));
    assert!(!pod.world.refresh().await, "the old one is refused");
    assert!(pod.world.knows_signing_key(), "good keys stay");
    pod.write("token", "its next");
    assert!(pod.world.refresh().await);
}

#[tokio::test]
async fn what_a_pod_lacks_makes_its_cluster_unreachable_and_is_told_without_the_token() {
    for (file, text, expected) in [
        ("ca.crt", "", "holds no certificate"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "no CA certificate"),
        ("token", " \n", "holds no token"),
        ("token", "secret\u{1}word", "holds no token"),
    ] {
        let mut pod = Pod::new().await;
        pod.write(file, text);
        pod.follow().await;
        pod.world.wait(|| !pod.world.events.is_empty()).await;
        let events = pod.world.events();
        let [TrustEvent::ProviderUnreachable { detail, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(detail.contains(expected) && !detail.contains("secret"), "{detail}");
        assert_eq!(pod.world.fetches(), 0, "{file}: nothing was asked");
    }
    let mut pod = Pod::new().await;
    std::fs::remove_file(pod.account.path().join("token")).unwrap();
    pod.follow().await;
    pod.world.wait(|| !pod.world.events.is_empty()).await;
    let events = pod.world.events();
    let [TrustEvent::ProviderUnreachable { detail, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(detail.contains("expected to run in a pod"), "{detail}");
}

#[tokio::test]
async fn a_server_under_another_ca_is_never_shown_the_token() {
    let mut pod = Pod::new().await;
    let other = DevIssuer::start(Start::in_memory(Arc::new(SystemClock))).await.unwrap();
    pod.write("ca.crt", &pem::encode(&pem::Pem::new("CERTIFICATE", other.root().to_vec())));
    pod.follow().await;
    pod.world.wait(|| !pod.world.events.is_empty()).await;
    assert!(matches!(pod.world.events().as_slice(), [TrustEvent::ProviderUnreachable { .. }]));
    assert_eq!(pod.world.fetches(), 0);
}
