//! Who may ask for what: users with a password for everything, bearer tokens for the routes that write.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::blocking;
use super::problem::Problem;
use crate::config::{Secret, WebConfig};

/// Password checks waiting at once; more are refused with 503.
const MAX_CHECKS: usize = 64;
/// The same of one client address, so that one that guesses does not keep others out. More than a browser's connections.
const MAX_CHECKS_OF_PEER: usize = 8;

/// Whether a request leaves everything as it is. What is not known to do so counts as writing.
fn only_reads(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || (*method == Method::POST && matches!(path, "/predict" | "/predict/batch"))
}

/// Checks passwords and tokens. A password is hashed once; after that a keyed hash tells that it is the same one again.
pub(super) struct Gate {
    /// Of this process, so that what is kept says nothing about passwords.
    key: hmac::Key,
    /// The last combination of user, password and hash that was right, by user.
    verified: Mutex<HashMap<String, hmac::Tag>>,
    waiting: Mutex<HashMap<IpAddr, usize>>,
    /// Bcrypt is made to take long: one at a time.
    worker: Arc<Semaphore>,
}

/// The users and tokens of a config.
pub(super) struct Access {
    users: BTreeMap<String, Secret>,
    /// Checked for users that do not exist, so that they take as long as those that do.
    decoy: Secret,
    tokens: Vec<hmac::Tag>,
    open_read: bool,
}

/// What gets a request in; it is open to everybody where nothing is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Takes {
    pub user: bool,
    pub token: bool,
}

impl Access {
    pub fn takes(&self, method: &Method, path: &str) -> Takes {
        let reads = only_reads(method, path);
        let needs_no_user = self.users.is_empty() || (reads && self.open_read);
        let needs_token = !self.tokens.is_empty() && !reads;
        if needs_no_user && !needs_token {
            return Takes::default();
        }
        Takes {
            user: !self.users.is_empty(),
            token: needs_token,
        }
    }
}

impl Gate {
    pub fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            verified: Mutex::default(),
            waiting: Mutex::default(),
            worker: Arc::new(Semaphore::new(1)),
        })
    }

    pub fn access(&self, config: &WebConfig) -> Access {
        let costs = config.users.values().filter_map(|hash| {
            let parts: HashParts = hash.expose().parse().ok()?;
            Some(parts.get_cost())
        });
        let cost = costs.max().unwrap_or(bcrypt::DEFAULT_COST);
        Access {
            users: config.users.clone(),
            decoy: Secret::new(format!("$2b${cost:02}${}", ".".repeat(53))),
            tokens: config
                .write_credentials
                .iter()
                .map(|token| hmac::sign(&self.key, token.expose().as_bytes()))
                .collect(),
            open_read: config.open_read,
        }
    }

    /// # Errors
    /// 401, or 503 when too many passwords are being checked.
    pub async fn admit(
        self: &Arc<Self>,
        access: &Access,
        peer: IpAddr,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let takes = access.takes(method, path);
        if takes == Takes::default() {
            return Ok(());
        }
        let credentials = headers.get(header::AUTHORIZATION);
        let credentials = credentials.and_then(|c| c.to_str().ok()?.split_once(' '));
        let is_admitted = match credentials {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                takes.token && self.knows_token(access, token.trim())
            }
            Some((scheme, encoded)) if scheme.eq_ignore_ascii_case("basic") => {
                match user_and_password(encoded.trim()) {
                    Some((user, password)) if takes.user => {
                        self.knows_user(access, peer, user, password).await?
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        match is_admitted {
            true => Ok(()),
            false => Err(unauthorized(takes)),
        }
    }

    fn knows_token(&self, access: &Access, token: &str) -> bool {
        let same =
            |tag: &hmac::Tag| hmac::verify(&self.key, token.as_bytes(), tag.as_ref()).is_ok();
        // All of them, so that the time says nothing about which one.
        access
            .tokens
            .iter()
            .fold(false, |known, tag| known | same(tag))
    }

    async fn knows_user(
        self: &Arc<Self>,
        access: &Access,
        peer: IpAddr,
        user: String,
        password: Vec<u8>,
    ) -> Result<bool, Problem> {
        let is_user = access.users.contains_key(&user);
        let hash = access.users.get(&user).unwrap_or(&access.decoy).clone();
        let seal = sealed(&user, &password, &hash);
        if self.was_verified(&user, &seal) {
            return Ok(true);
        }
        let place = Place::take(self.clone(), peer)?;
        // Never closed.
        let turn = self.worker.clone().acquire_owned().await;
        if self.was_verified(&user, &seal) {
            return Ok(true);
        }
        // On, even when the client has gone: it keeps its place and turn until the work is done.
        Ok(blocking(move || {
            let _held = (&place, turn);
            let is_right = bcrypt::verify(&password, hash.expose()).unwrap_or(false) && is_user;
            if is_right {
                let tag = hmac::sign(&place.gate.key, &seal);
                locked(&place.gate.verified).insert(user, tag);
            }
            is_right
        })
        .await)
    }

    fn was_verified(&self, user: &str, seal: &[u8]) -> bool {
        let tag = locked(&self.verified).get(user).copied();
        tag.is_some_and(|tag| hmac::verify(&self.key, seal, tag.as_ref()).is_ok())
    }
}

/// A place among the waiting password checks.
struct Place {
    gate: Arc<Gate>,
    peer: IpAddr,
}

impl Place {
    fn take(gate: Arc<Gate>, peer: IpAddr) -> Result<Self, Problem> {
        let mut waiting = locked(&gate.waiting);
        let all: usize = waiting.values().sum();
        let own = waiting.get(&peer).copied().unwrap_or(0);
        if all >= MAX_CHECKS || own >= MAX_CHECKS_OF_PEER {
            let detail = "too many passwords are being checked; retry after a second";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
            return Err(problem.retry_after(1));
        }
        waiting.insert(peer, own + 1);
        drop(waiting);
        Ok(Self { gate, peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = locked(&self.gate.waiting);
        match waiting.get_mut(&self.peer) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                waiting.remove(&self.peer);
            }
        }
    }
}

/// What is behind these locks is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unambiguous: each part with its length.
fn sealed(user: &str, password: &[u8], hash: &Secret) -> Vec<u8> {
    let parts = [user.as_bytes(), password, hash.expose().as_bytes()];
    let with_length = |part: &[u8]| [&(part.len() as u64).to_le_bytes(), part].concat();
    parts.into_iter().flat_map(with_length).collect()
}

fn user_and_password(encoded: &str) -> Option<(String, Vec<u8>)> {
    let decoded = BASE64_STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

fn unauthorized(takes: Takes) -> Problem {
    let (detail, challenge) = match (takes.user, takes.token) {
        (true, true) => (
            "send a user of basic_auth_users or one of forewarn.write_credentials as a bearer token",
            "Basic realm=\"forewarn\", Bearer realm=\"forewarn\"",
        ),
        (false, true) => (
            "send one of forewarn.write_credentials as a bearer token",
            "Bearer realm=\"forewarn\"",
        ),
        _ => (
            "send a user of basic_auth_users and its password",
            "Basic realm=\"forewarn\"",
        ),
    };
    Problem::new(StatusCode::UNAUTHORIZED, detail).challenge(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(users: &[(&str, u32)]) -> WebConfig {
        let user = |&(name, cost): &(&str, u32)| {
            let hash = bcrypt::hash("right", cost).unwrap();
            (name.to_owned(), Secret::new(hash))
        };
        WebConfig {
            tls: None,
            client_certificates: false,
            headers: Vec::new(),
            users: users.iter().map(user).collect(),
            write_credentials: Vec::new(),
            open_read: false,
        }
    }

    #[test]
    fn who_does_not_exist_costs_what_others_cost() {
        let gate = Gate::new().unwrap();
        let access = gate.access(&config(&[("a", 4), ("b", 6)]));
        let decoy: HashParts = access.decoy.expose().parse().unwrap();
        assert_eq!(decoy.get_cost(), 6);
    }

    #[tokio::test]
    async fn a_password_is_hashed_once_and_known_by_its_user_and_hash() {
        let gate = Arc::new(Gate::new().unwrap());
        let access = gate.access(&config(&[("a", 4), ("b", 4)]));
        let peer = IpAddr::from([127, 0, 0, 1]);
        let knows = async |access: &Access, user: &str, password: &str| {
            let known = gate.knows_user(access, peer, user.into(), password.into());
            known.await.unwrap()
        };
        assert!(!knows(&access, "a", "wrong").await && locked(&gate.verified).is_empty());
        assert!(knows(&access, "a", "right").await);
        // No hash is computed any more: nobody gets a turn.
        let turn = gate.worker.clone().try_acquire_owned().unwrap();
        assert!(knows(&access, "a", "right").await);
        drop(turn);
        assert!(!knows(&access, "a", "wrong").await);
        assert!(!knows(&access, "c", "right").await);
        let other = gate.access(&config(&[("a", 4)]));
        let hash = other.users["a"].clone();
        assert!(!gate.was_verified("a", &sealed("a", b"right", &hash)));
        assert!(!gate.was_verified("b", &sealed("b", b"right", &access.users["b"])));
        assert!(locked(&gate.waiting).is_empty());
    }
}
