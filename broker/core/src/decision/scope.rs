//! What is granted: what is asked, within every ceiling.

use daypass_evidence::entry::{CredentialType, Profile};
use daypass_verify::scope::Scope;

use super::resolve::{Caller, Destination};
use super::{Outward, Why};

/// A part of the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Audiences,
    Actions,
    Resources,
}

impl Dimension {
    const ALL: [Self; 3] = [Self::Audiences, Self::Actions, Self::Resources];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Audiences => "audiences",
            Self::Actions => "actions",
            Self::Resources => "resources",
        }
    }

    pub(super) const fn outward(self) -> Outward {
        match self {
            Self::Audiences => Outward::AudienceNotAllowed,
            Self::Actions => Outward::ActionNotAllowed,
            Self::Resources => Outward::ResourceNotAllowed,
        }
    }

    fn is_empty(self, scope: &Scope) -> bool {
        match self {
            Self::Audiences => scope.audiences.is_empty(),
            Self::Actions => scope.actions.is_empty(),
            Self::Resources => scope.resources.is_empty(),
        }
    }

    /// This part of `scope` alone.
    fn of(self, scope: &Scope) -> Scope {
        let Scope { audiences, actions, resources } = scope.clone();
        match self {
            Self::Audiences => Scope { audiences, ..Scope::default() },
            Self::Actions => Scope { actions, ..Scope::default() },
            Self::Resources => Scope { resources, ..Scope::default() },
        }
    }
}

/// The granted scope, and where it is less than was asked.
#[derive(Debug)]
pub(super) struct Narrowed {
    pub(super) granted: Scope,
    pub(super) dimensions: Vec<Dimension>,
}

/// Cuts what is asked to the ceilings of task, target and suppliers. A dimension that was asked for, or that the
/// task fills in, must not come out empty.
pub(super) fn narrow(
    destination: &Destination<'_>,
    caller: &Caller<'_>,
    profile: Profile,
) -> Result<Narrowed, Why> {
    let asked = &destination.asked.scope;
    let mut granted = asked.intersect(&destination.task.scope);
    granted.audiences.retain(|it| destination.target.audiences.contains(it));
    for (_, supplier) in caller.parties().filter_map(|party| party.supplier) {
        granted = granted.intersect(&supplier.ceiling);
    }
    for dimension in Dimension::ALL {
        if dimension.is_empty(&granted) && !dimension.is_empty(asked) {
            let clause = format!("none of the {} is within the ceiling", dimension.name());
            return Err(Why::new(inner(dimension), dimension.outward(), clause));
        }
    }
    check_audiences(&granted, profile)?;
    let less = |it: &Dimension| !it.of(asked).is_within(&granted);
    let dimensions = Dimension::ALL.into_iter().filter(less).collect();
    Ok(Narrowed { granted, dimensions })
}

const fn inner(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Audiences => "AUDIENCE_NOT_ALLOWED",
        Dimension::Actions => "ACTION_NOT_ALLOWED",
        Dimension::Resources => "RESOURCE_NOT_ALLOWED",
    }
}

fn check_audiences(granted: &Scope, profile: Profile) -> Result<(), Why> {
    if profile.credential_type() == CredentialType::Jwt && granted.audiences.is_empty() {
        let clause = "a token needs an audience, and the task has none for this target";
        return Err(Why::new("AUDIENCE_NOT_ALLOWED", Outward::AudienceNotAllowed, clause));
    }
    if profile == Profile::JwtSvid && granted.audiences.len() > 1 {
        return Err(Why::malformed("audiences", "a JWT-SVID has exactly one audience: name one"));
    }
    Ok(())
}
