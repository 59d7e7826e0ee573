//! `[credential.workload]`: for whom the machine speaks. What is attested to the broker is what the outputs then see to: a
//! credential that is asked for one user or unit goes to nobody else.

use daypass_sdk::Workload;

use super::credential::Credential;
use super::enforcer::Enforcer;
use super::proxy::{Listen, Proxy};
use super::section::Section;
use super::socket::{Allowed, Socket};

pub(super) fn read(mut section: Section<'_>) -> Option<Workload> {
    let uid = section.required("uid", "the number of the workload's user");
    let (unit, instance) = (section.optional("unit"), section.optional("instance"));
    section.finish();
    Some(Workload { unit, uid: uid?, instance })
}

/// Refuses outputs that would give a workload's credential to others.
pub(super) fn refuse_others(
    whole: &Section<'_>,
    has_node: bool,
    credentials: &[Credential],
    (sockets, proxies, enforcers): (&[Socket], &[Proxy], &[Enforcer]),
) {
    for credential in credentials {
        let Some(workload) = &credential.request.workload else { continue };
        let refuse = |what: &str| whole.refuse(&format!("credential `{}`: {what}", credential.name));
        if !has_node {
            refuse("`workload` is what a machine attests: expected `[node]` as the proof");
        }
        if let Some(files) = &credential.files {
            let theirs = files.owner.is_some_and(|owner| owner.uid == workload.uid);
            if !theirs || workload.unit.is_some() {
                refuse(
                    "its files are for a user, and not for a unit: expected `files.uid` as `workload.uid`, and no `unit` (a socket can tell units)",
                );
            }
        }
        if enforcers.iter().any(|it| it.tls.as_ref().is_some_and(|tls| tls.credential == credential.name)) {
            refuse(
                "an enforcer shows it, which is the agent itself: expected one of its own, without `workload`",
            );
        }
        let at_sockets = sockets.iter().filter(|it| it.credentials.contains(&credential.name));
        let at_proxies = proxies.iter().filter(|it| it.credential == credential.name);
        let allowed = at_sockets.map(|it| Some(&it.allowed)).chain(at_proxies.map(|it| at(&it.listen)));
        for allowed in allowed {
            if !allowed.is_some_and(|it| is_only(it, workload)) {
                refuse(
                    "others could ask for it: expected `uids` (and `units`, where it names a unit) of its socket to be those of `workload`",
                );
            }
        }
    }
}

fn at(listen: &Listen) -> Option<&Allowed> {
    match listen {
        Listen::Socket { allowed, .. } => Some(allowed),
        Listen::Loopback(_) => None,
    }
}

fn is_only(allowed: &Allowed, workload: &Workload) -> bool {
    let units = workload.unit.as_ref().is_none_or(|unit| allowed.units == [unit.as_str()]);
    allowed.uids == [workload.uid] && units
}
