//! How many connections are open, in all and for each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections against two caps.
#[derive(Debug, Clone)]
pub(super) struct Tally(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    in_all: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one open connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    tally: Tally,
    address: IpAddr,
}

impl Tally {
    pub(super) fn new(in_all: usize, per_address: usize) -> Self {
        Self(Arc::new(Shared { in_all, per_address, taken: Mutex::default() }))
    }

    /// A place for a connection from `ip`; none when all, or all of its address, are taken.
    pub(super) fn seat(&self, ip: IpAddr) -> Option<Seat> {
        let address = one_caller(ip);
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.in_all >= self.0.in_all || of_address >= self.0.per_address {
            return None;
        }
        taken.in_all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Seat { tally: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.tally.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Entry::Occupied(mut count) = taken.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What one caller has for itself: an IPv4 address, or the /64 network of an IPv6 address.
fn one_caller(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_seat_is_refused_over_either_cap_and_free_again_once_left() {
        let tally = Tally::new(3, 2);
        let first = tally.seat(ip("192.0.2.1")).unwrap();
        let _second = tally.seat(ip("::ffff:192.0.2.1")).unwrap();
        assert!(tally.seat(ip("192.0.2.1")).is_none(), "a third of one address");
        let _third = tally.seat(ip("192.0.2.2")).unwrap();
        assert!(tally.seat(ip("192.0.2.3")).is_none(), "a fourth in all");
        drop(first);
        assert!(tally.seat(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn one_ipv6_network_is_one_caller() {
        let tally = Tally::new(9, 1);
        let _seat = tally.seat(ip("2001:db8::1")).unwrap();
        assert!(tally.seat(ip("2001:db8::ffff:1")).is_none());
        assert!(tally.seat(ip("2001:db8:0:1::1")).is_some());
    }
}
