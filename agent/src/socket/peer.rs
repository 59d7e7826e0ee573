//! Who is at the other end of a Unix socket, as the kernel says.

use std::io;
use std::path::Path;

use rustix::process::geteuid;
use tokio::net::UnixStream;

use crate::config::Allowed;

/// A process, as it was when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its number; 0 where it is not in this one's namespace.
    pub(crate) pid: u32,
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its effective group.
    pub(crate) gid: u32,
    /// The systemd unit that it runs in.
    unit: Option<String>,
}

impl Peer {
    /// Who connected (`SO_PEERCRED`), and in which unit it runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, String> {
        let said = stream.peer_cred().map_err(|error| format!("a caller is not known: {error}"))?;
        let pid = said.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let unit = if pid == 0 { None } else { unit_of(pid, said.uid()).unwrap_or(None) };
        Ok(Self { pid, uid: said.uid(), gid: said.gid(), unit })
    }

    /// Whether every condition that is given holds.
    ///
    /// # Errors
    /// Which one does not.
    pub(crate) fn check(&self, allowed: &Allowed) -> Result<(), String> {
        let own = [geteuid().as_raw()];
        let uids = if allowed.uids.is_empty() { &own[..] } else { &allowed.uids };
        let refuse = |what: String| Err(format!("process {} may not ask here: {what}", self.pid));
        if !uids.contains(&self.uid) {
            return refuse(format!("user {} is not in `uids`", self.uid));
        }
        if !allowed.gids.is_empty() && !allowed.gids.contains(&self.gid) {
            return refuse(format!("group {} is not in `gids`", self.gid));
        }
        let in_unit = |unit: &String| allowed.units.contains(unit);
        if !allowed.units.is_empty() && !self.unit.as_ref().is_some_and(in_unit) {
            let unit = self.unit.as_deref().unwrap_or("none");
            return refuse(format!("its unit, `{}`, is not in `units`", unit.escape_debug()));
        }
        Ok(())
    }
}

impl Allowed {
    /// Whether nobody but this program's own user may ask.
    pub(crate) fn only_own_user(&self) -> bool {
        let own = geteuid().as_raw();
        self.uids.iter().all(|uid| *uid == own)
    }
}

/// The unit of a process that belongs to `uid`. Another process may have got the number since: then it must at least be
/// of the same user, before and after its unit was read.
fn unit_of(pid: u32, uid: u32) -> io::Result<Option<String>> {
    let process = format!("/proc/{pid}");
    let process = Path::new(&process);
    let before = identity_of(process)?;
    let unit = unit_in(&std::fs::read_to_string(process.join("cgroup"))?);
    let same = before == identity_of(process)? && before.0 == uid;
    Ok(unit.filter(|_| same))
}

/// Effective user, and when it was started.
fn identity_of(process: &Path) -> io::Result<(u32, String)> {
    let status = std::fs::read_to_string(process.join("status"))?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let uid =
        uids.split_whitespace().nth(1).and_then(|uid| uid.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let stat = std::fs::read_to_string(process.join("stat"))?;
    // The name of a process may hold anything, also parentheses; behind the last one is the third field.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let started = fields.split(' ').nth(19).ok_or(io::ErrorKind::InvalidData)?;
    Ok((uid, started.to_owned()))
}

/// The outermost unit in the path of a control group, in systemd's own hierarchy or the unified one.
fn unit_in(cgroup: &str) -> Option<String> {
    let systemd = cgroup.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let path = systemd.or(unified)?;
    // A unit may make groups below its own: those under `user@1000.service` are named by that user.
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/').find(is_unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { pid: 7, uid: 1000, gid: 100, unit: Some("billing.service".into()) }
    }

    #[test]
    fn every_condition_that_is_given_has_to_hold() {
        let allowed = |uids: &[u32], gids: &[u32], units: &[&str]| Allowed {
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            units: units.iter().map(|it| (*it).to_owned()).collect(),
        };
        for (allowed, expected) in [
            (allowed(&[1000], &[], &[]), None),
            (allowed(&[5, 1000], &[100], &["a.service", "billing.service"]), None),
            (allowed(&[5], &[100], &["billing.service"]), Some("user 1000")),
            (allowed(&[1000], &[5], &["billing.service"]), Some("group 100")),
            (allowed(&[1000], &[100], &["billing.servic"]), Some("`billing.service`")),
        ] {
            let found = peer().check(&allowed).err();
            assert_eq!(found.is_some(), expected.is_some(), "{allowed:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{allowed:?}");
        }
        let own = Peer { uid: geteuid().as_raw(), unit: None, ..peer() };
        own.check(&Allowed::default()).unwrap();
        assert!(Peer { uid: own.uid + 1, ..own.clone() }.check(&Allowed::default()).is_err());
        assert!(own.check(&allowed(&[], &[], &["billing.service"])).is_err(), "no unit is in none");
    }

    #[test]
    fn the_unit_is_the_one_that_systemd_made() {
        for (cgroup, expected) in [
            ("0::/system.slice/billing.service\n", Some("billing.service")),
            ("0::/system.slice/billing.service/worker.service\n", Some("billing.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/billing.service\n",
                Some("user@1000.service"),
            ),
            ("4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", Some("a.service")),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(cgroup).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_user_and_its_start() {
        let (uid, started) = identity_of(Path::new("/proc/self")).unwrap();
        assert_eq!(uid, geteuid().as_raw());
        assert!(started.parse::<u64>().unwrap() > 0);
        assert_eq!(unit_of(std::process::id(), uid + 1).unwrap(), None, "of another user");
    }
}
