//! `POST /token`: one proof, one task, one token. RFC 8693 where the proof is a token, RFC 6749 section 4.4 with
//! RFC 8705 section 2 where it is the connection's certificate.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use daypass_core::decision::Outward;
use daypass_core::draft::Assembled;
use daypass_core::request::{Bind, Form as Wanted, Renewed, Request};
use daypass_evidence::entry::Profile;
use daypass_verify::ids::{IdentityName, RequestId, SpiffeId};
use daypass_verify::scope::{Action, Audience};
use daypass_verify::task::TaskDetail;
use daypass_verify::time::Seconds;
use http::header;
use serde_json::{Value, json};

use super::{Asked, Fault, Form};
use crate::api::{Api, Caller, Outgoing, caller, fields};
use crate::issue::Credential;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CLIENT_CREDENTIALS: &str = "client_credentials";
/// What a client may name as its grant.
pub(in crate::web) const GRANTS: [&str; 2] = [EXCHANGE, CLIENT_CREDENTIALS];

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// A JWT that is no access token: as what is asked for, a JWT-SVID.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The value of `scope` that names the task; the others are actions.
const TASK_SCOPE: &str = "task:";

/// How many values a list may have.
const LIST_MAX: usize = 64;

pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    Extension(id): Extension<RequestId>,
    request: HttpRequest,
) -> Response {
    let mut id = id;
    let mut response = match exchanged(&api, &mut id, request).await {
        Ok(credential) => super::json(&told(&credential)),
        Err(fault) => fault.answer(&id),
    };
    super::name(response.headers_mut(), &id);
    response
}

/// `id` becomes the caller's own, once it is known who asks.
async fn exchanged(api: &Api, id: &mut RequestId, request: HttpRequest) -> Result<Credential, Fault> {
    let asked = Asked::read(*id, request).await?;
    let caller = proven(api, &asked).await?;
    *id = request_id(&asked.form, &caller)?;
    issued(api, &asked.form, &caller).await
}

/// Who asks: the subject token, or the connection's certificate, is the proof, and nothing else is one.
async fn proven(api: &Api, asked: &Asked) -> Result<Caller, Fault> {
    let form = &asked.form;
    asked.check_secrets()?;
    if asked.headers.contains_key(header::AUTHORIZATION) {
        let detail = "no `authorization` header is accepted here: expected the proof as `subject_token`, or a client certificate";
        return Err(Fault::malformed(detail).of_client());
    }
    let by = |token| caller(api, asked.connection.as_ref(), token, asked.client(), asked.id);
    match form.one("grant_type") {
        Some(EXCHANGE) => {
            let token = subject_token(form)?;
            Ok(by(Some(token)).await?)
        }
        Some(CLIENT_CREDENTIALS) if form.one("subject_token").is_some() => {
            Err(Fault::malformed(format!("a `subject_token` belongs to grant type `{EXCHANGE}`")))
        }
        Some(CLIENT_CREDENTIALS) if !asked.has_certificate() => {
            let detail = "expected a client certificate on the connection";
            Err(Fault::from(Outgoing::new(Outward::ProofRefused, detail)).of_client())
        }
        Some(CLIENT_CREDENTIALS) => by(None).await.map_err(|told| Fault::from(told).of_client()),
        Some(_) => {
            Err(Fault::called("unsupported_grant_type", format!("expected one of {}", GRANTS.join(", "))))
        }
        None => Err(Fault::malformed("`grant_type` is missing")),
    }
}

fn subject_token(form: &Form) -> Result<&str, Fault> {
    let token = form.one("subject_token").ok_or_else(|| Fault::malformed("`subject_token` is missing"))?;
    if !matches!(form.one("subject_token_type"), Some(ID_TOKEN | JWT)) {
        let detail = format!("`subject_token_type` is refused: expected `{ID_TOKEN}` or `{JWT}`");
        return Err(Fault::malformed(detail));
    }
    if form.one("actor_token").is_some() || form.one("actor_token_type").is_some() {
        let told = Outgoing::new(
            Outward::Unimplemented,
            "an actor token is not taken: a node speaks for a workload of its machine over gRPC",
        );
        return Err(told.into());
    }
    Ok(token)
}

/// The same line as over gRPC, from here on.
async fn issued(api: &Api, form: &Form, caller: &Caller) -> Result<Credential, Fault> {
    let began = Instant::now();
    let issued = decided(api, form, caller).await;
    api.count(began, issued.as_ref().err().map(|fault| &fault.told), issued.is_ok());
    issued
}

async fn decided(api: &Api, form: &Form, caller: &Caller) -> Result<Credential, Fault> {
    api.within_rate(caller)?;
    let supersedes = fields::optional("supersedes", form.one("supersedes").unwrap_or_default())?;
    let renewed = api.renewed(caller, supersedes).await?;
    let request = request(form, caller, renewed)?;
    Ok(api.issue(caller, &request, None).await?)
}

/// What is asked for, from `authorization_details`, `scope`, `resource` and `audience` together.
fn request(form: &Form, caller: &Caller, supersedes: Option<Renewed>) -> Result<Request, Fault> {
    let detail = form.one("authorization_details").map(detail).transpose()?;
    let (scope_task, scope_actions) = scope(form.one("scope").unwrap_or_default())?;
    let detail_task = detail.as_ref().map(|detail| detail.identifier.to_string());
    let task = match (detail_task, scope_task) {
        (Some(one), Some(other)) if one != other => {
            return Err(Fault::called("invalid_scope", "`scope` and `authorization_details` name two tasks"));
        }
        (Some(task), _) | (None, Some(task)) => task,
        (None, None) => {
            let detail = "no task is named: expected `authorization_details` of type `task`, or `task:NAME` in `scope`";
            return Err(Fault::malformed(detail));
        }
    };
    let (locations, actions, resources) =
        detail.map(|it| (it.locations, it.actions, it.resources)).unwrap_or_default();
    let audiences = audiences(form)?.into_iter().chain(locations).collect::<BTreeSet<_>>();
    let actions = actions.into_iter().chain(scope_actions).collect::<BTreeSet<_>>();
    for (name, len) in
        [("audiences", audiences.len()), ("actions", actions.len()), ("resources", resources.len())]
    {
        if len > LIST_MAX {
            return Err(Fault::malformed(format!("{len} {name}: expected {LIST_MAX} at most")));
        }
    }
    Ok(Request {
        id: request_id(form, caller)?,
        id_is_callers: form.one("request_id").is_some(),
        task,
        identity: identity(form)?,
        audiences,
        actions,
        resources,
        ttl_s: form.one("ttl").map(ttl).transpose()?,
        form: Wanted::Token { profile: profile(form)?, bind: Bind::Auto },
        run: fields::run(form.one("run").unwrap_or_default())?,
        supersedes,
        refuse_narrowed: false,
        client: caller.client.clone(),
        approval: None,
        emergency: None,
        for_workload: false,
    })
}

/// The caller's id for the request, or else ours.
fn request_id(form: &Form, caller: &Caller) -> Result<RequestId, Fault> {
    let chosen = fields::optional("request_id", form.one("request_id").unwrap_or_default())?;
    Ok(chosen.unwrap_or(caller.request))
}

/// Digits alone: no sign, no unit, no fraction.
fn ttl(text: &str) -> Result<Seconds, Fault> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    Ok(fields::ttl(text.parse().ok().filter(|_| digits))?)
}

fn parsed<T: FromStr<Err: Display>>(error: &'static str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|why: T::Err| Fault::called(error, why.to_string()))
}

/// One detail of type `task` (RFC 9396, section 2): a field that is not known could narrow what the others say.
fn detail(text: &str) -> Result<TaskDetail, Fault> {
    let refuse = |why: String| Fault::called("invalid_authorization_details", why);
    let expected = "expected a JSON array of one object of type `task`, with `identifier` and perhaps `actions`, `locations` and `resources`";
    let [detail]: [TaskDetail; 1] =
        serde_json::from_str(text).map_err(|why| refuse(format!("{why}: {expected}")))?;
    Ok(detail)
}

fn scope(text: &str) -> Result<(Option<String>, BTreeSet<Action>), Fault> {
    let (mut task, mut actions) = (None, BTreeSet::new());
    for value in text.split(' ').filter(|value| !value.is_empty()) {
        match value.strip_prefix(TASK_SCOPE) {
            Some(name) if task.is_none() => task = Some(name.to_owned()),
            Some(_) => return Err(Fault::called("invalid_scope", "`scope` names two tasks: ask for one")),
            None => {
                actions.insert(parsed("invalid_scope", value)?);
            }
        }
    }
    match &task {
        Some(name) if name.is_empty() || name.len() > 128 => {
            Err(Fault::called("invalid_scope", "a task has a name of 1 to 128 bytes"))
        }
        _ => Ok((task, actions)),
    }
}

fn audiences(form: &Form) -> Result<Vec<Audience>, Fault> {
    let mut found = Vec::new();
    for text in form.all("resource") {
        let resource: Audience = parsed("invalid_target", text)?;
        if !resource.is_uri() {
            return Err(Fault::called(
                "invalid_target",
                "expected `resource` to be a URI without a fragment",
            ));
        }
        found.push(resource);
    }
    for text in form.all("audience") {
        found.push(parsed("invalid_target", text)?);
    }
    Ok(found)
}

/// The identity, where the client says which it is: the name, or the SPIFFE ID that tokens carry as `client_id`.
fn identity(form: &Form) -> Result<Option<IdentityName>, Fault> {
    let Some(text) = form.one("client_id") else { return Ok(None) };
    let name = text.parse::<SpiffeId>().ok().map(|id| id.path().trim_start_matches('/').to_owned());
    let name = name.as_deref().unwrap_or(text).parse();
    name.map(Some).map_err(|_| {
        Fault::malformed("`client_id` is refused: expected the identity's name or SPIFFE ID, or nothing")
            .of_client()
    })
}

fn profile(form: &Form) -> Result<Option<Profile>, Fault> {
    match form.one("requested_token_type") {
        None => Ok(None),
        Some(ACCESS_TOKEN) => Ok(Some(Profile::AccessToken)),
        Some(JWT) => Ok(Some(Profile::JwtSvid)),
        Some(_) => {
            let detail = format!(
                "`requested_token_type` is refused: expected `{ACCESS_TOKEN}`, or `{JWT}` for a JWT-SVID"
            );
            Err(Fault::malformed(detail))
        }
    }
}

/// RFC 8693, section 2.2.1, and RFC 9396, section 7: what was granted, whatever was asked.
fn told(credential: &Credential) -> Value {
    let grant = credential.granted();
    let token = match credential.assembled() {
        Assembled::Token(token) => token.as_str(),
        Assembled::Certificate(_) => "",
    };
    let (issued, kind) = match grant.profile() {
        Profile::JwtSvid => (JWT, "N_A"),
        _ => (ACCESS_TOKEN, "Bearer"),
    };
    let task = &grant.task().name;
    let scope: Vec<String> = std::iter::once(format!("{TASK_SCOPE}{task}"))
        .chain(grant.scope().actions.iter().map(ToString::to_string))
        .collect();
    json!({
        "access_token": token,
        "issued_token_type": issued,
        "token_type": kind,
        "expires_in": grant.expires_at().seconds() - grant.issued_at().seconds(),
        "scope": scope.join(" "),
        "authorization_details": [TaskDetail::new(task.clone(), grant.scope())],
    })
}
