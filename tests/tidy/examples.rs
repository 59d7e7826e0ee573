//! Examples for other platforms are what those platforms read, and agree with what Daypass reads.

use std::path::Path;

use daypass_agent::config::Config;
use daypass_core::bundle::compile;
use daypass_core::bundle::object::IssuerKind;
use yaml_rust2::{Yaml, YamlLoader};

use super::sources::all;

fn documents(path: &str) -> Vec<Yaml> {
    let all = all();
    let source = all.iter().find(|source| source.path == path).unwrap_or_else(|| panic!("no `{path}`"));
    YamlLoader::load_from_str(&source.text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> &'a Yaml {
    documents.iter().find(|it| it["kind"].as_str() == Some(kind)).unwrap_or_else(|| panic!("no {kind}"))
}

fn named<'a>(list: &'a Yaml, name: &str) -> &'a Yaml {
    let found = list.as_vec().unwrap().iter().find(|it| it["name"].as_str() == Some(name));
    found.unwrap_or_else(|| panic!("no `{name}` in {list:?}"))
}

const WORKLOAD: &str = "docs/examples/kubernetes/workload.yaml";

#[test]
fn the_agent_in_the_manifests_is_configured_for_what_the_pod_gives_it() {
    let documents = documents(WORKLOAD);
    let text = of_kind(&documents, "ConfigMap")["data"]["agent.toml"].as_str().unwrap();
    let config = Config::parse(text, Path::new("/etc/daypass")).unwrap_or_else(|faults| panic!("{faults:?}"));
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"];
    let agent = named(&pod["initContainers"], "daypass-agent");
    let proof = named(&pod["volumes"], "proof");
    let token = &proof["projected"]["sources"][0]["serviceAccountToken"];
    let mounted = named(&agent["volumeMounts"], "proof")["mountPath"].as_str().unwrap();
    let file = Path::new(mounted).join(token["path"].as_str().unwrap());
    assert_eq!(config.connection.id_token_file, Some(file));
    let audience = token["audience"].as_str().unwrap();
    assert_eq!(
        config.connection.web.as_str().trim_end_matches('/'),
        audience,
        "the broker is its only audience"
    );
    let shared = named(&agent["volumeMounts"], "credentials")["mountPath"].as_str().unwrap();
    let files = config.credentials.iter().filter_map(|it| it.files.as_ref());
    assert!(
        files.map(|it| it.directory.starts_with(shared)).eq([true]),
        "what it writes is on the shared volume"
    );
    let workload = named(&named(&pod["containers"], "nightly")["volumeMounts"], "credentials");
    assert_eq!((workload["mountPath"].as_str(), workload["readOnly"].as_bool()), (Some(shared), Some(true)));
    assert_eq!(named(&pod["volumes"], "credentials")["emptyDir"]["medium"].as_str(), Some("Memory"));
}

#[test]
fn the_token_of_the_manifests_is_one_that_the_shown_issuer_believes() {
    let documents = documents(WORKLOAD);
    let pod = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"];
    let token = &named(&pod["volumes"], "proof")["projected"]["sources"][0]["serviceAccountToken"];
    let bundle = compile(&daypass_broker::dev::organisation::sample()).unwrap();
    let IssuerKind::Oidc { proof_ttl_max_s, .. } = &bundle.declared().issuers["cluster"].kind else {
        panic!()
    };
    let life = token["expirationSeconds"].as_i64().unwrap();
    assert!((600..=i64::from(proof_ttl_max_s.get())).contains(&life), "{life} s");
    let account = of_kind(&documents, "ServiceAccount");
    let (name, space) = (&account["metadata"]["name"], &account["metadata"]["namespace"]);
    assert_eq!(pod["serviceAccountName"], *name);
    let subject = format!("system:serviceaccount:{}:{}", space.as_str().unwrap(), name.as_str().unwrap());
    let all = all();
    let page = all.iter().find(|source| source.path == "docs/issuers.md").unwrap();
    assert!(page.text.contains(&format!("subject = \"{subject}\"")), "docs/issuers.md shows no `{subject}`");
}

/// What must not stand in an argument of a program, where others on the machine could read it.
const SECRETS: [&str; 4] = ["ACTIONS_ID_TOKEN_REQUEST_TOKEN", "$proof", "$token", "$TOKEN"];

#[test]
fn the_workflow_is_short_may_ask_for_a_token_and_shows_no_secret_in_an_argument() {
    let documents = documents("docs/examples/github-workflow.yml");
    let job = &documents[0]["jobs"]["deploy"];
    assert_eq!(documents[0]["permissions"]["id-token"].as_str(), Some("write"));
    assert!(job["environment"].as_str().is_some());
    for step in job["steps"].as_vec().unwrap() {
        let script = step["run"].as_str().unwrap();
        assert!(script.lines().count() <= 12, "more than a dozen lines");
        // `printf` is of the shell itself: its arguments are no program's.
        for command in script.lines().flat_map(|line| line.split("$(")).flat_map(|it| it.split('|')) {
            let shown = SECRETS.iter().any(|secret| command.contains(secret));
            assert!(!shown || command.trim_start().starts_with("printf"), "{command}");
        }
    }
}
