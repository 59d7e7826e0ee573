//! Claims within claims: some platforms put what tells their workloads apart into an object of their own.

use serde_json::{Map, Value};

use crate::header::refuse_case_twins;
use crate::jose::{JoseError, SignedToken};

impl SignedToken {
    /// The claim that `name` means: a member of the top level, or, where it begins with `/`, what this JSON Pointer
    /// (RFC 6901) leads to through objects alone. A member of the top level whose own name begins with `/` is meant
    /// by its pointer (`/~1name`), so that no two claims have one name.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        let path = path(name)?;
        let (last, holders) = path.split_last()?;
        let mut object = self.claims();
        for step in holders {
            object = object.get(step)?.as_object()?;
        }
        object.get(last)
    }

    /// Refuses claims whose names differ only by case from one of `used`, or from a step on the way to one. The
    /// registered names are checked already; this is for the ones that a declaration adds.
    ///
    /// # Errors
    /// When there is such a twin.
    pub fn check_no_twins_of(&self, used: &[&str]) -> Result<(), JoseError> {
        let (nested, plain): (Vec<&str>, Vec<&str>) = used.iter().partition(|name| name.starts_with('/'));
        refuse_case_twins(self.claims(), &plain)?;
        nested.into_iter().filter_map(path).try_for_each(|path| self.no_twin_on(&path))
    }

    fn no_twin_on(&self, path: &[String]) -> Result<(), JoseError> {
        let mut object: Option<&Map<String, Value>> = Some(self.claims());
        for step in path {
            let Some(members) = object else { return Ok(()) };
            refuse_case_twins(members, &[step])?;
            object = members.get(step).and_then(Value::as_object);
        }
        Ok(())
    }
}

/// The names of the members that lead from the top of a token to the claim that `name` means; none where a step is
/// empty or misspelt (`~` stands only in `~0` and `~1`).
#[must_use]
pub fn path(name: &str) -> Option<Vec<String>> {
    match name.strip_prefix('/') {
        Some(steps) => steps.split('/').map(step).collect(),
        None => (!name.is_empty()).then(|| vec![name.to_owned()]),
    }
}

fn step(written: &str) -> Option<String> {
    let mut parts = written.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.split_at_checked(1)? {
            ("0", rest) => ('~', rest),
            ("1", rest) => ('/', rest),
            _ => return None,
        };
        name.push(escaped);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}
