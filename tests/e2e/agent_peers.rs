//! Who may speak on the agent's sockets, each of them: processes of other users and groups, as the kernel tells them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use daypass_tests::harness::{Agent, Deployment, eventually, free_port, left_out, run};
use rustix::process::{getegid, geteuid};

/// Another user, and a group that it does not run in.
const NOBODY: u32 = 65534;
const ELSEWHERE: u32 = 65533;

/// A user and a group.
type Caller = (u32, u32);

/// By whom each kind of socket is called, what is let in there, and what is answered to whom it is for.
struct Ground {
    deployment: Deployment,
    _agents: [Agent; 2],
    token: String,
}

impl Ground {
    async fn start() -> Self {
        let deployment = Deployment::start().await;
        // Others may go through it, and no further than to what is open to them.
        fs::set_permissions(deployment.folder(), fs::Permissions::from_mode(0o711)).unwrap();
        let agents = [tokens(&deployment), svids(&deployment)];
        for who in WHO {
            for kind in KINDS {
                let at = deployment.folder().join(format!("{who}-{kind}"));
                eventually("a socket", || async { at.exists() }).await;
            }
        }
        let verifying = || agents[0].said().matches("are verified").count();
        eventually("all that verify tokens", || async { verifying() == WHO.len() + 1 }).await;
        let mut made = Self { deployment, _agents: agents, token: String::new() };
        let own = (geteuid().as_raw(), getegid().as_raw());
        let address = made.deployment.folder().join("own-token");
        let plain = ["-H", "accept: text/plain", "http://agent/token?task=read-invoices"];
        made.token = curl(own, &address, &plain).await.0;
        assert!(made.token.starts_with("eyJ"), "{}", made.token);
        made
    }

    /// Whether a caller is let in: each kind of socket answers in its own way.
    async fn lets_in(&self, who: &str, kind: &str, caller: Caller) -> bool {
        let at = self.deployment.folder().join(format!("{who}-{kind}"));
        let bearer = format!("authorization: Bearer {}", self.token);
        let frame = self.deployment.folder().join("frame");
        fs::write(&frame, [0; 5]).unwrap();
        fs::set_permissions(&frame, fs::Permissions::from_mode(0o644)).unwrap();
        let frame = format!("@{}", frame.display());
        let (arguments, good): (&[&str], &str) = match kind {
            "token" => (&["http://agent/token?task=read-invoices"], "200"),
            "proxy" => (&["http://agent/verify"], "204"),
            "auth" => (&["-H", &bearer, "http://agent/verify"], "204"),
            // It says what is wrong with a request only to whom it is for: an audience is missing (gRPC status 3).
            _ => (
                &[
                    "--http2-prior-knowledge",
                    "-H",
                    "workload.spiffe.io: true",
                    "-H",
                    "content-type: application/grpc",
                    "--data-binary",
                    &frame,
                    "http://agent/SpiffeWorkloadAPI/FetchJWTSVID",
                ],
                "grpc-status: 3",
            ),
        };
        let (body, status) = curl(caller, &at, arguments).await;
        let answer = if kind == "workload-api" { &body } else { &status };
        let is_in = answer.contains(good);
        // Not let in: by the mode of the socket, or by the agent.
        let is_out = ["000", "403"].contains(&status.as_str()) || answer.contains("grpc-status: 7");
        assert!(is_in != is_out, "{who} {kind} {caller:?}: {status} {body}");
        is_in
    }
}

const WHO: [&str; 4] = ["own", "own-group", "nobody", "nobody-group"];
const KINDS: [&str; 4] = ["token", "proxy", "auth", "workload-api"];

/// What stands in the configuration of a socket for one of [`WHO`].
fn allowed(who: &str) -> String {
    let (own, group) = (geteuid().as_raw(), getegid().as_raw());
    match who {
        "own" => String::new(),
        "own-group" => format!("uids = [{own}]\ngids = [{group}]\n"),
        "nobody" => format!("uids = [{NOBODY}]\n"),
        _ => format!("uids = [{own}, {NOBODY}]\ngids = [{NOBODY}]\n"),
    }
}

/// An agent with a token socket, a proxy and what verifies tokens, for each of [`WHO`]. Behind the proxies stands what
/// verifies tokens, too, at an address.
fn tokens(deployment: &Deployment) -> Agent {
    let port = free_port();
    let audience = "https://ledger.example.org";
    let mut rest = format!(
        "[[credential]]\ntask = \"read-invoices\"\naudiences = [{audience:?}]\nbearer = true\n\
         [[auth]]\nlisten = \"127.0.0.1:{port}\"\naudience = {audience:?}\n"
    );
    for who in WHO {
        let (who, at) = (allowed(who), |kind: &str| deployment.folder().join(format!("{who}-{kind}")));
        let (token, proxy, auth) = (at("token"), at("proxy"), at("auth"));
        rest += &format!(
            "[[socket]]\npath = {token:?}\nserves = \"token\"\n{who}\
             [[proxy]]\nlisten = {proxy:?}\ncredential = \"read-invoices\"\nupstream = \"http://127.0.0.1:{port}\"\n\
             allow = [\"GET /verify\"]\ninject = \"token\"\n{who}\
             [[auth]]\nlisten = {auth:?}\naudience = {audience:?}\n{who}"
        );
    }
    Agent::start(&deployment.agent_config("peers", &rest), &[])
}

/// An agent with a Workload API for each of [`WHO`].
fn svids(deployment: &Deployment) -> Agent {
    let proof = deployment.folder().join("pod.token");
    fs::write(&proof, deployment.organisation.token("cluster", "prod/web/frontend").unwrap()).unwrap();
    let mut rest = "[[credential]]\ntask = \"mesh-identity\"\nkind = \"x509-svid\"\n".to_owned();
    for who in WHO {
        let (at, who) = (deployment.folder().join(format!("{who}-workload-api")), allowed(who));
        rest += &format!("[[socket]]\npath = {at:?}\nserves = \"workload-api\"\n{who}");
    }
    Agent::start(&deployment.agent_config_with("svids", &format!("id_token_file = {proof:?}"), &rest), &[])
}

/// What a process of `caller` is answered: the header and the body, and the status.
async fn curl((uid, gid): Caller, socket: &Path, more: &[&str]) -> (String, String) {
    let mut line = vec!["-s", "-w", "\n%{http_code}", "--unix-socket", socket.to_str().unwrap()];
    if more.contains(&"--http2-prior-knowledge") {
        line.extend(["-D", "-"]);
    }
    line.extend(more);
    let said = if (uid, gid) == (geteuid().as_raw(), getegid().as_raw()) {
        run("curl", line).await
    } else {
        let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
        let as_them = [&uid, &gid, "--clear-groups", "curl"];
        run("setpriv", as_them.into_iter().chain(line).collect::<Vec<_>>()).await
    };
    let (body, status) = said.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{said:?}"));
    (body.to_owned(), status.to_owned())
}

#[tokio::test]
async fn each_socket_is_for_the_users_and_groups_that_are_named_and_for_nobody_else() {
    let ground = Ground::start().await;
    let own = (geteuid().as_raw(), getegid().as_raw());
    let mut table = vec![(own, [true, true, false, false])];
    if geteuid().is_root() {
        table.push(((NOBODY, NOBODY), [false, false, true, true]));
        table.push(((NOBODY, ELSEWHERE), [false, false, true, false]));
        table.push(((ELSEWHERE, NOBODY), [false, false, false, false]));
        table.push(((own.0, NOBODY), [true, false, false, true]));
    } else {
        left_out("callers of other users at the agent's sockets", "only root can start them");
    }
    for (caller, expected) in table {
        for kind in KINDS {
            for (who, expected) in WHO.into_iter().zip(expected) {
                let found = ground.lets_in(who, kind, caller).await;
                assert_eq!(found, expected, "{caller:?} at the {kind} socket for {who}");
            }
        }
    }
}
