//! The workflow of `docs/examples`, declared as `docs/issuers.md` shows: each of its steps run as a runner of GitHub's runs
//! it, with a token of the shape that GitHub's have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::routing::{get, post};
use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_tests::harness::{Deployment, Output, claims_of, free_port, run, spiffe_id};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use yaml_rust2::{Yaml, YamlLoader};

const SHOP: &str = "prod/deploy/shop";
const REQUEST_TOKEN: &str = "what-the-runner-gave-the-job";

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The sample organisation with GitHub, and a clause for its jobs, both as the page about issuers has them.
fn with_github() -> Vec<SourceFile> {
    let page = page("docs/issuers.md");
    let shown = page.split("## GitHub Actions").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let (issuer, proofs) = shown.trim_start_matches("toml").split_once("proofs").unwrap();
    let mut files = sample();
    let tasks = files.iter_mut().find(|file| file.path == "tasks.toml").unwrap();
    tasks.text = tasks.text.replacen("[task.deploy-web]\n", "[task.deploy-web]\nbearer = true\n", 1);
    let identity = format!(
        r#"[identity."{SHOP}"]
        class = "ci"
        privilege = "standard"
        purpose = "deploys the web shop from its main branch"
        business_owner = "platform"
        technical_owner = "p-1041"
        environment = "prod"
        expires = 2027-11-30
        review_every = "90d"
        tasks = ["deploy-web"]
        proofs{proofs}"#
    );
    let rule = format!(
        "@id(\"shop/deploy\")\npermit (principal == Identity::\"{SHOP}\", action == Action::\"issue\", resource == Task::\"deploy-web\");\n"
    );
    files.push(SourceFile { path: "rules/shop.cedar".into(), text: rule });
    files.push(SourceFile { path: "issuers/github.toml".into(), text: issuer.into() });
    files.push(SourceFile { path: "identities/shop.toml".into(), text: identity });
    files
}

/// What GitHub says of a job, with an event of this name.
fn job(event: &str, audience: &str) -> Value {
    json!({
        "sub": "repo:example-org/shop:environment:production", "aud": audience, "environment": "production",
        "environment_node_id": "EN_x", "ref": "refs/heads/main", "ref_protected": "true", "ref_type": "branch",
        "sha": "ffffffffffffffffffffffffffffffffffffffff", "repository": "example-org/shop",
        "repository_owner": "example-org", "repository_id": "74", "repository_owner_id": "65",
        "repository_visibility": "private", "run_id": "9012345678", "run_number": "10", "run_attempt": "2",
        "runner_environment": "github-hosted", "actor": "someone", "actor_id": "12", "workflow": "deploy",
        "workflow_ref": "example-org/shop/.github/workflows/deploy.yml@refs/heads/main", "head_ref": "",
        "base_ref": "", "event_name": event,
        "job_workflow_ref": "example-org/shop/.github/workflows/deploy.yml@refs/heads/main",
    })
}

/// Where a job of this event asks for its token.
async fn runner(deployment: &Arc<Deployment>, event: &'static str) -> String {
    let deployment = Arc::clone(deployment);
    let answer = move |Query(asked): Query<BTreeMap<String, String>>, headers: HeaderMap| async move {
        let bearer = format!("bearer {REQUEST_TOKEN}");
        if headers.get("authorization").is_none_or(|it| it.to_str().unwrap() != bearer) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let claims = job(event, &asked["audience"]).as_object().unwrap().clone();
        let token = deployment.organisation.issuer("github").unwrap().issue(claims).unwrap();
        Ok(json!({ "count": token.len(), "value": token }).to_string())
    };
    let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/idtoken?api-version=2.0", at.local_addr().unwrap());
    let routes = Router::new().route("/idtoken", get(answer));
    tokio::spawn(async move { axum::serve(at, routes).await });
    url
}

/// Where releases are taken, from whoever has a token for it.
async fn releases(deployment: &Deployment) -> String {
    let routes = Router::new().route("/releases", post(|| async { "released" }));
    deployment.receiving("https://deploy.example.org", routes).await + "/releases"
}

/// A job of the workflow on a runner: what is set for every step, and what steps gave out.
struct Job {
    steps: Vec<Yaml>,
    set: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

impl Job {
    fn new(deployment: &Deployment, tokens: &str, broker: &str, releases: &str) -> Self {
        let text = page("docs/examples/github-workflow.yml");
        let workflow = YamlLoader::load_from_str(&text).unwrap().remove(0);
        let job = &workflow["jobs"]["deploy"];
        let mut set = pairs(&job["env"]);
        for (name, ours) in [("DAYPASS", broker), ("RELEASES", releases)] {
            *set.get_mut(name).unwrap() = ours.into();
        }
        let ca = deployment.listener_ca.to_str().unwrap();
        for (name, value) in [
            ("PATH", std::env::var("PATH").unwrap().as_str()),
            ("CURL_CA_BUNDLE", ca),
            ("NO_PROXY", "*"),
            ("GITHUB_RUN_ID", "9012345678"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", tokens),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN),
        ] {
            set.insert(name.into(), value.into());
        }
        Self { steps: job["steps"].as_vec().unwrap().clone(), set, outputs: BTreeMap::new() }
    }

    /// Runs one step in a folder of its own, as `shell: bash` is documented.
    async fn step(&mut self, number: usize) -> Output {
        let step = &self.steps[number];
        assert_eq!(step["shell"].as_str(), Some("bash"));
        let folder = tempfile::tempdir().unwrap();
        let [script, outputs, workspace] =
            ["script", "outputs", "workspace"].map(|name| folder.path().join(name));
        std::fs::write(&script, step["run"].as_str().unwrap()).unwrap();
        std::fs::write(&outputs, "").unwrap();
        std::fs::create_dir(&workspace).unwrap();
        let mut arguments = vec!["-i".to_owned(), format!("--chdir={}", workspace.display())];
        let own = pairs(&step["env"]).into_iter().map(|(name, value)| (name, self.filled_in(value)));
        let set = self.set.clone().into_iter().chain(own);
        arguments.extend(set.map(|(name, value)| format!("{name}={value}")));
        arguments.push(format!("GITHUB_OUTPUT={}", outputs.display()));
        arguments.extend(["bash", "--noprofile", "--norc", "-eo", "pipefail"].map(String::from));
        arguments.push(script.to_str().unwrap().into());
        let ended = run("env", &arguments).await;
        assert_eq!(std::fs::read_dir(workspace).unwrap().count(), 0, "nothing is left in the workspace");
        let given = std::fs::read_to_string(outputs).unwrap();
        if let Some(id) = step["id"].as_str() {
            let named = given.lines().map(|line| line.split_once('=').unwrap());
            let named = named.map(|(name, value)| (format!("steps.{id}.outputs.{name}"), value.to_owned()));
            self.outputs.extend(named);
        }
        ended
    }

    /// An expression's value.
    fn filled_in(&self, value: String) -> String {
        let expression = value.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
        expression.map_or(value.clone(), |name| self.outputs[name.trim()].clone())
    }
}

fn pairs(yaml: &Yaml) -> BTreeMap<String, String> {
    let text = |it: &Yaml| it.as_str().unwrap().to_owned();
    yaml.as_hash().into_iter().flatten().map(|(name, value)| (text(name), text(value))).collect()
}

#[tokio::test]
async fn a_job_gets_a_token_that_is_masked_and_reaches_the_service_with_it() {
    let deployment = Arc::new(Deployment::start_with(with_github(), |_| {}).await);
    let tokens = runner(&deployment, "push").await;
    let broker = deployment.settings.issuer.as_str().to_owned();
    let mut job = Job::new(&deployment, &tokens, &broker, &releases(&deployment).await);
    let said = job.step(0).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let token = job.outputs["steps.daypass.outputs.token"].clone();
    assert_eq!(said.stdout, format!("::add-mask::{token}\n"), "said once, to hide it");
    let (_, claims) = claims_of(&token);
    assert_eq!((&claims["sub"], &claims["run"]), (&json!(spiffe_id(SHOP)), &json!("9012345678")));
    let issued = deployment.issued(claims["jti"].as_str().unwrap()).await;
    assert_eq!(issued.asked.run.as_deref(), Some("9012345678"));

    let said = job.step(1).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "released"), "{said:?}");
    job.outputs.insert("steps.daypass.outputs.token".into(), format!("{token}x"));
    let said = job.step(1).await;
    assert!(said.code != Some(0) && said.stderr.contains("401"), "{said:?}");
}

#[tokio::test]
async fn a_job_that_gets_no_token_fails_and_says_why_in_one_line() {
    let deployment = Arc::new(Deployment::start_with(with_github(), |_| {}).await);
    let broker = deployment.settings.issuer.as_str().to_owned();
    let (ours, pulls) = (runner(&deployment, "push").await, runner(&deployment, "pull_request").await);
    let away = format!("https://127.0.0.1:{}", free_port());
    let nowhere = ours.replace("/idtoken", "/gone");
    for (what, tokens, broker, line) in [
        ("of a pull request", &pulls, &broker, "::error::no token: NOT_ALLOWED: "),
        ("without the permission", &nowhere, &broker, "404"),
        ("whose broker is away", &ours, &away, "127.0.0.1"),
    ] {
        let mut job = Job::new(&deployment, tokens, broker, "https://127.0.0.1");
        let said = job.step(0).await;
        let told = format!("{}{}", said.stdout, said.stderr);
        assert!(said.code.is_some_and(|code| code != 0), "{what}: {said:?}");
        assert!(told.contains(line) && told.lines().count() == 1, "{what}: {said:?}");
        assert!(job.outputs.is_empty() && !told.contains("eyJ"), "{what}: {said:?}");
    }
}
