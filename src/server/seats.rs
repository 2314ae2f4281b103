//! How many connections each client address holds: one alone must not take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Seats(Mutex<HashMap<IpAddr, usize>>);

/// A connection that counts until it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    client: IpAddr,
    /// How many the client holds with this one.
    pub taken: usize,
}

impl Seats {
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Seat {
        let client = client(address);
        let mut held = self.held();
        let taken = held.entry(client).or_default();
        *taken += 1;
        Seat {
            seats: self.clone(),
            client,
            taken: *taken,
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.held();
        if let Some(taken) = held.get_mut(&self.client) {
            *taken -= 1;
            if *taken == 0 {
                held.remove(&self.client);
            }
        }
    }
}

/// Whoever has an IPv6 address has its /64.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_network_and_forgotten_when_it_is_gone() {
        let seats = Arc::new(Seats::default());
        let take = |address: &str| seats.take(address.parse().unwrap());
        let held = [
            (take("10.0.0.1"), 1),
            (take("::ffff:10.0.0.1"), 2),
            (take("10.0.0.2"), 1),
            (take("fe80::1"), 1),
            (take("fe80::2:0:0:1"), 2),
            (take("fe80:0:0:1::1"), 1),
        ];
        for (seat, taken) in &held {
            assert_eq!(seat.taken, *taken, "{}", seat.client);
        }
        drop(held);
        assert!(seats.held().is_empty());
    }
}
