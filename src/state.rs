//! What must survive a restart: received alerts, incidents, alarms and named
//! documents, in one SQLite file. Calls block; async code uses `spawn_blocking`.
//!
//! A write is on the disk when its call returns. There is one writer per
//! directory; any number of processes may read beside it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::Value;

use crate::scoreboard::{Changes, Stored};
use crate::time::{Timestamp, millis};
use crate::types::{Source, TargetId};

const DATABASE: &str = "forewarn.db";
/// Name of the document with the scoreboard's books.
const SCOREBOARD: &str = "scoreboard";
const LOCK: &str = "forewarn.lock";
/// "fwrn": tells our files from other programs' SQLite files.
const APPLICATION_ID: i32 = 0x6677_726e;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Parts of the time that is not needed, of which the oldest are deleted until the state is small enough.
const SLICES: i64 = 32;

/// Entry n leads from schema version n to n + 1. Never change one that was released.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE alerts (
  fingerprint TEXT NOT NULL,
  starts_at INTEGER NOT NULL,
  ends_at INTEGER,
  statuses INTEGER NOT NULL, -- bits of the statuses received so far
  own INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  labels TEXT NOT NULL,
  annotations TEXT NOT NULL,
  PRIMARY KEY (fingerprint, starts_at)
) STRICT;
CREATE INDEX alerts_by_start ON alerts (starts_at);
CREATE TABLE incidents (
  target TEXT NOT NULL,
  started INTEGER NOT NULL,
  ended INTEGER,
  source TEXT NOT NULL,
  foreseen_seconds REAL,
  reasons TEXT,
  PRIMARY KEY (target, started)
) STRICT;
CREATE INDEX incidents_by_start ON incidents (started);
CREATE TABLE alarms (
  target TEXT NOT NULL,
  opened INTEGER NOT NULL,
  covers_until INTEGER NOT NULL,
  probability REAL NOT NULL,
  outcome TEXT,
  lead_seconds REAL,
  reasons TEXT,
  PRIMARY KEY (target, opened)
) STRICT;
CREATE INDEX alarms_by_opening ON alarms (opened);
CREATE TABLE documents (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
",
    "
CREATE TABLE ledgers (number INTEGER PRIMARY KEY, json TEXT NOT NULL) STRICT;
CREATE TABLE scores (
  at INTEGER PRIMARY KEY,
  scores BLOB NOT NULL -- a little-endian f32 for each number of a ledger
) STRICT;
",
    "
CREATE TABLE actions (
  target TEXT NOT NULL,
  id TEXT NOT NULL, -- given by who reported it
  acted_at INTEGER NOT NULL,
  comment TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  PRIMARY KEY (target, id)
) STRICT;
CREATE INDEX actions_by_time ON actions (acted_at);
",
    "
ALTER TABLE incidents ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;
UPDATE incidents SET missed = foreseen_seconds IS NULL;
",
];

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "another forewarn is writing to {}; stop it, or give this one a directory of its own (state.path or DATA_PATH)",
        .dir.display()
    )]
    Locked { dir: PathBuf },
    #[error(
        "{path} is damaged ({detail}); move it away (mv {path}* elsewhere) and start again: forewarn then begins with an empty state, \
         or put back a copy",
        path = .path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "{} is an SQLite file of another program; give forewarn a directory of its own (state.path or DATA_PATH)",
        .path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} has schema version {found}, this forewarn writes version {known}; {}",
        .path.display(),
        if .found > .known { "run the newer forewarn that wrote it" } else { "start `forewarn serve` once, which updates it" }
    )]
    Version {
        path: PathBuf,
        found: usize,
        known: usize,
    },
    #[error(
        "{} does not exist; `forewarn serve` makes it in the directory that state.path or DATA_PATH names",
        .path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "cannot use {}: {detail}; check that the disk has space and that this user may read and write there",
        .path.display()
    )]
    Unavailable { path: PathBuf, detail: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    Firing,
    Resolved,
}

impl AlertStatus {
    fn bit(self) -> u8 {
        match self {
            AlertStatus::Firing => 1,
            AlertStatus::Resolved => 2,
        }
    }
}

/// One alert of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedAlert {
    pub fingerprint: String,
    pub status: AlertStatus,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub starts_at: Timestamp,
    /// Read only when resolved; `None` then means "by the time it was received".
    pub ends_at: Option<Timestamp>,
    /// Raised by our own predictions: never a failure.
    pub own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    pub fingerprint: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub starts_at: Timestamp,
    /// `None` while it fires. Where the resolved delivery was lost, the first
    /// later instant at which the same alert is known to be over or to start anew.
    pub ends_at: Option<Timestamp>,
    /// Of the first delivery.
    pub received_at: Timestamp,
    pub own: bool,
}

/// How many (fingerprint, status, start) were new and how many were known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub stored: u64,
    pub duplicate: u64,
}

/// Unique by target and start. Writing it again updates it; `None` in
/// `foreseen` and `reasons` keeps what is stored, and so does a `missed` that is false.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentRecord {
    pub target: TargetId,
    pub source: Source,
    pub start: Timestamp,
    pub end: Option<Timestamp>,
    /// Seconds by which an alarm came before the start.
    pub foreseen: Option<f64>,
    /// Whether the target was watched and no alarm came.
    pub missed: bool,
    pub reasons: Option<Value>,
}

impl IncidentRecord {
    /// What the predictions were worth: foreseen, missed, or unwatched where none was made of the target before.
    pub fn verdict(&self) -> &'static str {
        match self.foreseen {
            Some(_) => "foreseen",
            None if self.missed => "missed",
            None => UNWATCHED,
        }
    }
}

/// Of an incident that began before its target had a prediction.
pub const UNWATCHED: &str = "unwatched";

/// Unique by target and opening. Writing it again updates it; `None` in
/// `outcome`, `lead_seconds` and `reasons` keeps what is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRecord {
    pub target: TargetId,
    pub opened: Timestamp,
    pub covers_until: Timestamp,
    pub probability: f64,
    pub outcome: Option<String>,
    pub lead_seconds: Option<f64>,
    pub reasons: Option<Value>,
}

/// Somebody did something about a target. Unique by target and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRecord {
    pub target: TargetId,
    pub id: String,
    pub at: Timestamp,
    pub comment: String,
}

/// Rows deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Older than the retention.
    pub expired: usize,
    /// Because the state was too large.
    pub surplus: usize,
}

/// Handle on the state; clones share one connection.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    retention: Duration,
    connection: Mutex<Connection>,
    /// Held for as long as the store lives; the system drops it with the process.
    _lock: Option<File>,
}

impl Store {
    /// Opens or makes the state in `dir` as its only writer, checks the file and updates its schema.
    pub fn open(dir: &Path, retention: Duration) -> Result<Store, StateError> {
        let path = dir.join(DATABASE);
        std::fs::create_dir_all(dir).map_err(|error| unavailable(dir, error))?;
        let lock = lock(dir)?;
        let connect = || {
            let mut connection = Connection::open_with_flags(
                &path,
                OpenFlags::SQLITE_OPEN_READ_WRITE
                    | OpenFlags::SQLITE_OPEN_CREATE
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let version = version(&connection)?;
            // Reads every page; integrity_check would compare the indexes too and take five times as long.
            let check: String = connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
            if let (Ok(from), "ok") = (version, &*check) {
                prepare(&mut connection, from)?;
            }
            Ok((connection, version, check))
        };
        let (connection, version, check) = connect().map_err(|error| sort_out(&path, error))?;
        version.map_err(|refusal| refusal.at(&path))?;
        if check != "ok" {
            return Err(StateError::Corrupt {
                path,
                detail: check,
            });
        }
        Ok(Self::new(path, retention, connection, Some(lock)))
    }

    /// Opens the state in `dir` for reading, beside a writer or without one.
    pub fn open_read_only(dir: &Path) -> Result<Store, StateError> {
        let path = dir.join(DATABASE);
        if !path
            .try_exists()
            .map_err(|error| unavailable(&path, error))?
        {
            return Err(StateError::Missing { path });
        }
        let connect = || {
            let connection = Connection::open_with_flags(
                &path,
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let version = version(&connection)?;
            Ok((connection, version))
        };
        let (connection, version) = connect().map_err(|error| sort_out(&path, error))?;
        match version {
            Ok(found) if found < MIGRATIONS.len() => Err(Refusal::Version(found).at(&path)),
            Ok(_) => Ok(Self::new(path, Duration::ZERO, connection, None)),
            Err(refusal) => Err(refusal.at(&path)),
        }
    }

    fn new(path: PathBuf, retention: Duration, connection: Connection, lock: Option<File>) -> Self {
        Self(Arc::new(Inner {
            path,
            retention,
            connection: Mutex::new(connection),
            _lock: lock,
        }))
    }

    /// Stores one delivery, all or nothing. Idempotent per (fingerprint,
    /// status, start): any order and repetition of the same deliveries leaves
    /// the same alerts. Of several ends of one alert the latest counts.
    pub fn record_alerts(
        &self,
        received_at: Timestamp,
        alerts: &[ReceivedAlert],
    ) -> Result<Recorded, StateError> {
        self.write(|tx| {
            let mut recorded = Recorded::default();
            let mut find = tx.prepare_cached(
                "SELECT statuses, own, ends_at FROM alerts WHERE fingerprint = ?1 AND starts_at = ?2",
            )?;
            let mut insert =
                tx.prepare_cached("INSERT INTO alerts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            let mut update = tx.prepare_cached(
                "UPDATE alerts SET ends_at = ?3, statuses = ?4, own = ?5 WHERE fingerprint = ?1 AND starts_at = ?2",
            )?;
            for alert in alerts {
                let start = alert.starts_at.0;
                let known: Option<(u8, bool, Option<i64>)> = find
                    .query_row(params![alert.fingerprint, start], |row| row.try_into())
                    .optional()?;
                let known_end = known.and_then(|(_, _, end)| end);
                let end = match (alert.status, alert.ends_at) {
                    (AlertStatus::Firing, _) => known_end,
                    (AlertStatus::Resolved, Some(end)) => known_end.max(Some(end.0.max(start))),
                    (AlertStatus::Resolved, None) => known_end.or(Some(received_at.0.max(start))),
                };
                let bit = alert.status.bit();
                let Some((statuses, own, _)) = known else {
                    insert.execute(params![
                        alert.fingerprint,
                        start,
                        end,
                        bit,
                        alert.own,
                        received_at.0,
                        serde_json::json!(alert.labels).to_string(),
                        serde_json::json!(alert.annotations).to_string(),
                    ])?;
                    recorded.stored += 1;
                    continue;
                };
                if statuses & bit == 0 {
                    recorded.stored += 1;
                } else {
                    recorded.duplicate += 1;
                }
                let now = (statuses | bit, own || alert.own, end);
                if now != (statuses, own, known_end) {
                    update.execute(params![alert.fingerprint, start, now.2, now.0, now.1])?;
                }
            }
            Ok(recorded)
        })
    }

    /// Alerts that fired at some time from `since` to `until`, by start.
    pub fn alerts(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<StoredAlert>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM (
                       SELECT fingerprint, labels, annotations, starts_at, coalesce(ends_at, (
                           SELECT min(iif(b.starts_at > a.starts_at, b.starts_at, b.ends_at)) FROM alerts b
                           WHERE b.fingerprint = a.fingerprint AND (b.starts_at > a.starts_at OR b.ends_at >= a.starts_at)
                         )) AS ended, received_at, own
                       FROM alerts a WHERE starts_at <= ?2
                     ) WHERE ended IS NULL OR ended >= ?1 ORDER BY starts_at, fingerprint",
                )?
                .query_map([since.0, until.0], |row| {
                    Ok(StoredAlert {
                        fingerprint: row.get(0)?,
                        labels: json(row, 1)?,
                        annotations: json(row, 2)?,
                        starts_at: Timestamp(row.get(3)?),
                        ends_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
                        received_at: Timestamp(row.get(5)?),
                        own: row.get(6)?,
                    })
                })?
                .collect()
        })
    }

    /// Stores actions, all or nothing. One that is known by target and id stays as it was first told.
    pub fn record_actions(
        &self,
        received_at: Timestamp,
        actions: &[ActionRecord],
    ) -> Result<Recorded, StateError> {
        self.write(|tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO actions VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?;
            let mut stored = 0;
            for action in actions {
                stored += insert.execute(params![
                    action.target.as_str(),
                    action.id,
                    action.at.0,
                    action.comment,
                    received_at.0,
                ])? as u64;
            }
            let duplicate = actions.len() as u64 - stored;
            Ok(Recorded { stored, duplicate })
        })
    }

    /// Actions from `since` to `until`, newest first.
    pub fn actions(
        &self,
        since: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ActionRecord>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, id, acted_at, comment FROM actions WHERE acted_at BETWEEN ?1 AND ?2
                     ORDER BY acted_at DESC, target, id LIMIT ?3",
                )?
                .query_map(params![since.0, until.0, as_i64(limit)], |row| {
                    Ok(ActionRecord {
                        target: target(row)?,
                        id: row.get(1)?,
                        at: Timestamp(row.get(2)?),
                        comment: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    pub fn upsert_incident(&self, incident: &IncidentRecord) -> Result<(), StateError> {
        self.write(|tx| put_incident(tx, incident))
    }

    /// Incidents that went on at some time from `since` to `until`, newest first.
    pub fn incidents(
        &self,
        since: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<IncidentRecord>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, source, started, ended, foreseen_seconds, reasons, missed FROM incidents
                     WHERE started <= ?2 AND (ended IS NULL OR ended >= ?1)
                     ORDER BY started DESC, target LIMIT ?3",
                )?
                .query_map(params![since.0, until.0, as_i64(limit)], incident)?
                .collect()
        })
    }

    /// One target's incidents, newest first.
    pub fn incidents_of(
        &self,
        target: &str,
        limit: usize,
    ) -> Result<Vec<IncidentRecord>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, source, started, ended, foreseen_seconds, reasons, missed FROM incidents
                     WHERE target = ?1 ORDER BY started DESC LIMIT ?2",
                )?
                .query_map(params![target, as_i64(limit)], incident)?
                .collect()
        })
    }

    pub fn upsert_alarm(&self, alarm: &AlarmRecord) -> Result<(), StateError> {
        self.write(|tx| put_alarm(tx, alarm))
    }

    /// Alarms opened at or after `since`, newest first.
    pub fn alarms(&self, since: Timestamp, limit: usize) -> Result<Vec<AlarmRecord>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, opened, covers_until, probability, outcome, lead_seconds, reasons FROM alarms
                     WHERE opened >= ?1 ORDER BY opened DESC, target LIMIT ?2",
                )?
                .query_map(params![since.0, as_i64(limit)], alarm)?
                .collect()
        })
    }

    /// One target's alarms, newest first.
    pub fn alarms_of(&self, target: &str, limit: usize) -> Result<Vec<AlarmRecord>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, opened, covers_until, probability, outcome, lead_seconds, reasons FROM alarms
                     WHERE target = ?1 ORDER BY opened DESC LIMIT ?2",
                )?
                .query_map(params![target, as_i64(limit)], alarm)?
                .collect()
        })
    }

    /// Everything that one cycle learned, all or nothing.
    pub fn write_cycle(
        &self,
        incidents: &[IncidentRecord],
        alarms: &[AlarmRecord],
        scoreboard: &Changes,
    ) -> Result<(), StateError> {
        self.write(|tx| {
            incidents.iter().try_for_each(|i| put_incident(tx, i))?;
            alarms.iter().try_for_each(|a| put_alarm(tx, a))?;
            put_scoreboard(tx, scoreboard)
        })
    }

    /// The scoreboard as the last cycles left it.
    pub fn scoreboard(&self) -> Result<Option<Stored>, StateError> {
        self.read(|connection| {
            let books = connection
                .query_row(
                    "SELECT json FROM documents WHERE name = ?1",
                    [SCOREBOARD],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(books) = books else {
                return Ok(None);
            };
            let ledgers = connection
                .prepare("SELECT number, json FROM ledgers")?
                .query_map([], |row| row.try_into())?
                .collect::<rusqlite::Result<_>>()?;
            let scores = connection
                .prepare("SELECT at, scores FROM scores")?
                .query_map([], |row| Ok((Timestamp(row.get(0)?), row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(Stored {
                books,
                ledgers,
                scores,
            }))
        })
    }

    /// Deletes what ended longer than the retention before `now`, or was never heard of again since. Where the state is
    /// larger than `max_bytes`, the oldest goes too of what was over before `needed`. Gives the space back.
    pub fn prune(
        &self,
        now: Timestamp,
        needed: Timestamp,
        max_bytes: u64,
    ) -> Result<Pruned, StateError> {
        let is_crowded = self.size() > max_bytes;
        let oldest = now.0.saturating_sub(millis(self.0.retention));
        let mut pruned = Pruned {
            expired: self.delete(
                [
                    "DELETE FROM alerts WHERE coalesce(ends_at, received_at) < ?1",
                    "DELETE FROM incidents WHERE coalesce(ended, started) < ?1",
                    "DELETE FROM alarms WHERE covers_until < ?1",
                    "DELETE FROM actions WHERE acted_at < ?1",
                ],
                oldest,
            )?,
            surplus: 0,
        };
        if is_crowded {
            pruned.surplus = self.delete_surplus(needed, max_bytes / 10 * 9)?;
        }
        self.read(|connection| {
            // Each step frees a page.
            let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            // While somebody reads, the log is emptied another time.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })?;
        Ok(pruned)
    }

    /// Deletes the oldest of what was over before `needed` until `max_bytes` are in use.
    fn delete_surplus(&self, needed: Timestamp, max_bytes: u64) -> Result<usize, StateError> {
        const OLDEST: &str = "SELECT min(start) FROM (
            SELECT min(starts_at) AS start FROM alerts WHERE ends_at IS NOT NULL
            UNION SELECT min(started) FROM incidents WHERE ended IS NOT NULL
            UNION SELECT min(opened) FROM alarms
            UNION SELECT min(acted_at) FROM actions)";
        let oldest: Option<i64> = self.read(|c| c.query_row(OLDEST, [], |row| row.get(0)))?;
        let oldest = oldest.unwrap_or(needed.0);
        let mut deleted = 0;
        for slice in 1..=SLICES {
            if self.read(bytes_in_use)? <= max_bytes {
                break;
            }
            let before = oldest + (needed.0 - oldest) * slice / SLICES;
            deleted += self.delete(
                [
                    "DELETE FROM alerts WHERE starts_at < ?1 AND ends_at < ?1",
                    "DELETE FROM incidents WHERE started < ?1 AND ended < ?1",
                    "DELETE FROM alarms WHERE opened < ?1 AND covers_until < ?1",
                    "DELETE FROM actions WHERE acted_at < ?1",
                ],
                before,
            )?;
        }
        Ok(deleted)
    }

    fn delete(&self, statements: [&str; 4], before: i64) -> Result<usize, StateError> {
        self.write(|tx| {
            let rows = statements.iter().map(|sql| tx.execute(sql, [before]));
            rows.sum()
        })
    }

    /// Bytes on disk, write-ahead log included.
    pub fn size(&self) -> u64 {
        let mut log = self.0.path.clone().into_os_string();
        log.push("-wal");
        [self.0.path.as_path(), Path::new(&log)]
            .iter()
            .filter_map(|path| path.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let mut connection = self
            .0
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|error| sort_out(&self.0.path, error))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let connection = self
            .0
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|error| sort_out(&self.0.path, error))
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| unavailable(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { dir: dir.into() }),
        Err(TryLockError::Error(error)) => Err(unavailable(&path, error)),
    }
}

/// Why a sound SQLite file is not for us.
#[derive(Clone, Copy)]
enum Refusal {
    Foreign,
    Version(usize),
}

impl Refusal {
    fn at(self, path: &Path) -> StateError {
        let path = path.into();
        match self {
            Refusal::Foreign => StateError::Foreign { path },
            Refusal::Version(found) => StateError::Version {
                path,
                found,
                known: MIGRATIONS.len(),
            },
        }
    }
}

/// The schema version; 0 is an empty file.
fn version(connection: &Connection) -> rusqlite::Result<Result<usize, Refusal>> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let id = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    Ok(match usize::try_from(version) {
        Ok(0) if id == 0 && objects == 0 => Ok(0),
        Ok(version) if id == i64::from(APPLICATION_ID) => {
            if version > MIGRATIONS.len() {
                Err(Refusal::Version(version))
            } else {
                Ok(version)
            }
        }
        _ => Err(Refusal::Foreign),
    })
}

/// Sets the connection up for durable writes and brings the schema up to date.
fn prepare(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    // auto_vacuum only takes effect before the first page is written, so it comes before WAL.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA journal_size_limit = 8388608;",
    )?;
    for (version, migration) in MIGRATIONS.iter().enumerate().skip(from) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", as_i64(version + 1))?;
        tx.commit()?;
    }
    Ok(())
}

/// Bytes of the pages that hold something.
fn bytes_in_use(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::from(pages) * u64::from(number("PRAGMA page_size")?))
}

fn incident(row: &Row) -> rusqlite::Result<IncidentRecord> {
    let source: String = row.get(1)?;
    Ok(IncidentRecord {
        target: target(row)?,
        source: Source::ALL
            .into_iter()
            .find(|s| s.name() == source)
            .ok_or_else(|| unreadable(1, format!("source {source:?}")))?,
        start: Timestamp(row.get(2)?),
        end: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        foreseen: row.get(4)?,
        missed: row.get(6)?,
        reasons: optional_json(row, 5)?,
    })
}

fn alarm(row: &Row) -> rusqlite::Result<AlarmRecord> {
    Ok(AlarmRecord {
        target: target(row)?,
        opened: Timestamp(row.get(1)?),
        covers_until: Timestamp(row.get(2)?),
        probability: row.get(3)?,
        outcome: row.get(4)?,
        lead_seconds: row.get(5)?,
        reasons: optional_json(row, 6)?,
    })
}

fn put_incident(connection: &Connection, incident: &IncidentRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO incidents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET ended = excluded.ended, source = excluded.source,
               foreseen_seconds = coalesce(excluded.foreseen_seconds, foreseen_seconds),
               reasons = coalesce(excluded.reasons, reasons), missed = max(excluded.missed, missed)",
        )?
        .execute(params![
            incident.target.as_str(),
            incident.start.0,
            incident.end.map(|t| t.0),
            incident.source.name(),
            incident.foreseen,
            incident.reasons.as_ref().map(Value::to_string),
            incident.missed,
        ])?;
    Ok(())
}

fn put_alarm(connection: &Connection, alarm: &AlarmRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO alarms VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET covers_until = excluded.covers_until, probability = excluded.probability,
               outcome = coalesce(excluded.outcome, outcome),
               lead_seconds = coalesce(excluded.lead_seconds, lead_seconds),
               reasons = coalesce(excluded.reasons, reasons)",
        )?
        .execute(params![
            alarm.target.as_str(),
            alarm.opened.0,
            alarm.covers_until.0,
            alarm.probability,
            alarm.outcome,
            alarm.lead_seconds,
            alarm.reasons.as_ref().map(Value::to_string),
        ])?;
    Ok(())
}

fn put_scoreboard(connection: &Connection, changes: &Changes) -> rusqlite::Result<()> {
    let Stored {
        books,
        ledgers,
        scores,
    } = &changes.stored;
    connection
        .prepare_cached("INSERT OR REPLACE INTO documents VALUES (?1, ?2)")?
        .execute([SCOREBOARD, books])?;
    let mut delete = connection.prepare_cached("DELETE FROM ledgers WHERE number = ?1")?;
    for number in &changes.gone {
        delete.execute([number])?;
    }
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO ledgers VALUES (?1, ?2)")?;
    for (number, json) in ledgers {
        put.execute(params![number, json])?;
    }
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO scores VALUES (?1, ?2)")?;
    for (at, scores) in scores {
        put.execute(params![at.0, scores])?;
    }
    connection
        .prepare_cached("DELETE FROM scores WHERE at < ?1")?
        .execute([changes.oldest.0])?;
    Ok(())
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn target(row: &Row) -> rusqlite::Result<TargetId> {
    Ok(TargetId::new(row.get::<_, String>(0)?))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, error.to_string()))
}

fn optional_json(row: &Row, column: usize) -> rusqlite::Result<Option<Value>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

fn unreadable(column: usize, detail: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, detail.into())
}

fn unavailable(path: &Path, error: std::io::Error) -> StateError {
    StateError::Unavailable {
        path: path.into(),
        detail: error.to_string(),
    }
}

/// Tells damage, which needs a person, from what may pass: full or read-only disk, busy, I/O.
fn sort_out(path: &Path, error: rusqlite::Error) -> StateError {
    use rusqlite::{Error, ErrorCode};
    let (path, detail) = (path.to_owned(), error.to_string());
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..) => StateError::Corrupt { path, detail },
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StateError::Corrupt { path, detail }
            }
            _ => StateError::Unavailable { path, detail },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::scoreboard::Scoreboard;

    const DAY: Duration = Duration::from_secs(86_400);
    const EVER: (Timestamp, Timestamp) = (Timestamp(i64::MIN), Timestamp(i64::MAX));

    fn open(dir: &TempDir) -> Store {
        Store::open(dir.path(), DAY).unwrap()
    }

    fn refusal(result: Result<Store, StateError>) -> String {
        result.err().expect("must be refused").to_string()
    }

    /// `end` of `None` is a firing delivery.
    fn alert(fingerprint: &str, start: i64, end: Option<i64>) -> ReceivedAlert {
        ReceivedAlert {
            fingerprint: fingerprint.into(),
            status: if end.is_some() {
                AlertStatus::Resolved
            } else {
                AlertStatus::Firing
            },
            labels: BTreeMap::from([("alertname".into(), fingerprint.into())]),
            annotations: BTreeMap::new(),
            starts_at: Timestamp(start),
            ends_at: end.map(Timestamp),
            own: false,
        }
    }

    fn spells(store: &Store) -> Vec<(String, i64, Option<i64>)> {
        let alerts = store.alerts(EVER.0, EVER.1).unwrap();
        alerts
            .into_iter()
            .map(|a| (a.fingerprint, a.starts_at.0, a.ends_at.map(|t| t.0)))
            .collect()
    }

    fn incident(target: &str, start: i64, end: Option<i64>) -> IncidentRecord {
        IncidentRecord {
            target: TargetId::new(target),
            source: Source::Query,
            start: Timestamp(start),
            end: end.map(Timestamp),
            foreseen: None,
            missed: false,
            reasons: None,
        }
    }

    fn alarm(target: &str, opened: i64) -> AlarmRecord {
        AlarmRecord {
            target: TargetId::new(target),
            opened: Timestamp(opened),
            covers_until: Timestamp(opened + 1000),
            probability: 0.75,
            outcome: None,
            lead_seconds: None,
            reasons: Some(json!([{"feature": "memory_usage_slope_60m"}])),
        }
    }

    #[test]
    fn deliveries_become_spells() {
        type Spells = &'static [(i64, Option<i64>)];
        #[rustfmt::skip]
        let table: &[(&str, Spells, Spells)] = &[
            ("firing", &[(10, None)], &[(10, None)]),
            ("firing, resolved", &[(10, None), (10, Some(20))], &[(10, Some(20))]),
            ("resolved, its firing late", &[(10, Some(20)), (10, None)], &[(10, Some(20))]),
            ("resolved without firing", &[(10, Some(20))], &[(10, Some(20))]),
            ("fires again", &[(10, None), (10, Some(20)), (30, None)], &[(10, Some(20)), (30, None)]),
            ("resolved lost, fires again", &[(10, None), (30, None)], &[(10, Some(30)), (30, None)]),
            ("resolved names an earlier start", &[(15, None), (10, Some(20))], &[(10, Some(20)), (15, Some(20))]),
            ("two ends, the latest counts", &[(10, Some(25)), (10, Some(20))], &[(10, Some(25))]),
            ("ends before it starts", &[(10, Some(5))], &[(10, Some(10))]),
        ];
        for (case, deliveries, expected) in table {
            let dir = TempDir::new().unwrap();
            let store = open(&dir);
            for &(start, end) in *deliveries {
                store
                    .record_alerts(Timestamp(50), &[alert("a", start, end)])
                    .unwrap();
            }
            let found: Vec<_> = spells(&store).into_iter().map(|(_, s, e)| (s, e)).collect();
            assert_eq!(found, *expected, "{case}");
        }
    }

    #[test]
    fn resolved_without_an_end_is_over_when_first_received() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let ended = ReceivedAlert {
            status: AlertStatus::Resolved,
            ..alert("a", 10, None)
        };
        for received in [50, 90] {
            store
                .record_alerts(Timestamp(received), std::slice::from_ref(&ended))
                .unwrap();
        }
        assert_eq!(spells(&store), [("a".into(), 10, Some(50))]);
    }

    #[test]
    fn alerts_are_found_by_overlap() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        store
            .record_alerts(
                Timestamp(0),
                &[alert("closed", 10, Some(20)), alert("open", 30, None)],
            )
            .unwrap();
        for (since, until, expected) in [
            (0, 9, &[][..]),
            (15, 16, &["closed"]),
            (0, 100, &["closed", "open"]),
            (21, 29, &[]),
            (90, 100, &["open"]),
        ] {
            let found = store.alerts(Timestamp(since), Timestamp(until)).unwrap();
            let found: Vec<_> = found.iter().map(|a| a.fingerprint.as_str()).collect();
            assert_eq!(found, expected, "{since}..{until}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn order_and_repetition_of_deliveries_change_nothing(
            (first, second) in prop::collection::vec((0..3_u8, 0..4_i64, prop::option::of(0..3_i64), any::<bool>()), 1..24)
                .prop_flat_map(|all| {
                    let repeated: Vec<_> = all.iter().chain(&all).copied().collect();
                    (Just(all), Just(repeated).prop_shuffle())
                }),
            batch in 1..7_usize,
        ) {
            let alerts = |steps: &[(u8, i64, Option<i64>, bool)]| -> Vec<_> {
                steps
                    .iter()
                    .map(|&(name, start, length, own)| ReceivedAlert {
                        own,
                        ..alert(&name.to_string(), start * 10, length.map(|l| start * 10 + l * 7))
                    })
                    .collect()
            };
            let (first, second) = (alerts(&first), alerts(&second));
            let record = |deliveries: &[ReceivedAlert], batch| {
                let dir = TempDir::new().unwrap();
                let store = open(&dir);
                let sum = deliveries.chunks(batch).fold(Recorded::default(), |sum, part| {
                    let new = store.record_alerts(Timestamp(1000), part).unwrap();
                    Recorded { stored: sum.stored + new.stored, duplicate: sum.duplicate + new.duplicate }
                });
                (store.alerts(EVER.0, EVER.1).unwrap(), sum)
            };
            let (alerts, sum) = record(&first, 1);
            let (again, repeated) = record(&second, batch);
            prop_assert_eq!(&alerts, &again);
            let distinct: HashSet<_> = first.iter().map(|a| (&a.fingerprint, a.status, a.starts_at)).collect();
            prop_assert_eq!(sum.stored, distinct.len() as u64);
            prop_assert_eq!(repeated.stored, distinct.len() as u64);
            prop_assert_eq!(repeated.stored + repeated.duplicate, second.len() as u64);
            let keys: BTreeSet<_> = first.iter().map(|a| (a.starts_at.0, a.fingerprint.clone())).collect();
            let found: Vec<_> = alerts.into_iter().map(|a| (a.starts_at.0, a.fingerprint)).collect();
            prop_assert_eq!(found, keys.into_iter().collect::<Vec<_>>());
        }
    }

    fn nothing() -> Changes {
        Changes {
            stored: Stored::default(),
            gone: BTreeSet::new(),
            oldest: at(0),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    #[test]
    fn everything_is_there_after_a_restart() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        store
            .record_alerts(Timestamp(5), &[alert("a", 1, None)])
            .unwrap();
        store.upsert_alarm(&alarm("other", 1)).unwrap();
        store
            .upsert_incident(&incident("other", 1, Some(2)))
            .unwrap();
        let incidents = [
            incident("db", 10, Some(20)),
            IncidentRecord {
                foreseen: Some(90.5),
                ..incident("web/1", 30, None)
            },
        ];
        let alarms = [alarm("db", 5), alarm("web/1", 7)];
        let mut changes = Changes {
            stored: Stored {
                books: "{}".into(),
                ledgers: [(0, "a".into()), (1, "b".into())].into(),
                scores: [(at(60), vec![1; 8]), (at(120), vec![2; 8])].into(),
            },
            gone: [3].into(),
            oldest: at(60),
        };
        store.write_cycle(&[], &[], &changes).unwrap();
        changes.stored.books = r#"{"right":1}"#.into();
        changes.stored.ledgers = [(1, "c".into())].into();
        changes.stored.scores = [(at(180), vec![3; 8])].into();
        (changes.gone, changes.oldest) = ([0].into(), at(120));
        store.write_cycle(&incidents, &alarms, &changes).unwrap();
        drop(store);

        for store in [Store::open_read_only(dir.path()).unwrap(), open(&dir)] {
            assert_eq!(spells(&store), [("a".into(), 1, None)]);
            let all = store.incidents(EVER.0, EVER.1, 10).unwrap();
            assert_eq!(all[..2], [incidents[1].clone(), incidents[0].clone()]);
            assert_eq!(
                store.incidents(Timestamp(25), EVER.1, 10).unwrap(),
                incidents[1..]
            );
            assert_eq!(store.alarms(Timestamp(0), 1).unwrap(), alarms[1..]);
            let scoreboard = Stored {
                books: r#"{"right":1}"#.into(),
                ledgers: [(1, "c".into())].into(),
                scores: [(at(120), vec![2; 8]), (at(180), vec![3; 8])].into(),
            };
            assert_eq!(store.scoreboard().unwrap(), Some(scoreboard));
            assert!(store.size() > 0);
        }
    }

    /// A state as an earlier forewarn left it; for each schema version there is one.
    fn earlier(version: usize) -> TempDir {
        let dir = TempDir::new().unwrap();
        let path = format!(
            "{}/tests/fixtures/state/{version}.sql",
            env!("CARGO_MANIFEST_DIR")
        );
        let sql = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let connection = Connection::open(dir.path().join(DATABASE)).unwrap();
        connection.execute_batch(&sql).unwrap();
        dir
    }

    #[test]
    fn every_earlier_schema_is_updated_and_nothing_that_was_decided_is_lost() {
        let rules = crate::labels::FailureRules {
            step: Duration::from_secs(60),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: Duration::from_secs(1800),
        };
        let rule = crate::evaluation::AlarmRule::new(0.5, Duration::ZERO, &rules);
        for version in 1..=MIGRATIONS.len() {
            let dir = earlier(version);
            if version < MIGRATIONS.len() {
                let message = refusal(Store::open_read_only(dir.path()));
                assert!(message.contains("start `forewarn serve` once"), "{message}");
            }
            drop(open(&dir));
            // What it has become is not updated again.
            let store = open(&dir);
            assert_eq!(
                spells(&store),
                [
                    (
                        "ec945c8c9a2eb066".into(),
                        1_768_059_045_123,
                        Some(1_768_059_945_123)
                    ),
                    ("6bff63b14bba62a9".into(), 1_768_060_000_000, None),
                ],
                "{version}"
            );
            let alerts = store.alerts(EVER.0, EVER.1).unwrap();
            assert_eq!(alerts[0].annotations["summary"], "ünïcode → \"quoted\"");
            assert_eq!((alerts[0].own, alerts[1].own), (false, true));
            let reasons =
                json!([{"feature": "disk_usage_slope_60m", "value": 4.5, "contribution": 1.25}]);
            let incidents = store.incidents(EVER.0, EVER.1, 10).unwrap();
            let known: Vec<_> = incidents
                .iter()
                .map(|i| (i.target.as_str(), i.source, i.end.map(|t| t.0), i.foreseen))
                .collect();
            assert_eq!(
                known,
                [
                    ("web-1", Source::Query, None, None),
                    (
                        "db-1",
                        Source::Webhook,
                        Some(1_768_059_960_000),
                        Some(540.0)
                    ),
                ]
            );
            assert_eq!(incidents[1].reasons, Some(reasons.clone()));
            let alarms = store.alarms(EVER.0, 10).unwrap();
            assert_eq!(alarms[0].outcome, None);
            assert_eq!(alarms[1].outcome.as_deref(), Some("right"));
            assert_eq!(alarms[1].reasons, Some(reasons));

            let actions = store.actions(EVER.0, EVER.1, 10).unwrap();
            assert_eq!(actions.len(), usize::from(version >= 3));
            let stored = store.scoreboard().unwrap().unwrap();
            // The first version kept what is undecided in another way, which is dropped.
            assert_eq!(stored.ledgers.is_empty(), version == 1);
            let summary = Scoreboard::restore(&stored, rule, DAY).unwrap().summary();
            assert_eq!((summary.right, summary.r#false, summary.missed), (3, 1, 2));
            assert_eq!(summary.lead_time_histogram.count, 3);
        }
    }

    #[test]
    fn a_migration_is_whole_or_has_not_begun() {
        let dir = earlier(1);
        // In the way of the second version's tables.
        let connection = Connection::open(dir.path().join(DATABASE)).unwrap();
        connection.execute_batch("CREATE TABLE scores (x)").unwrap();
        drop(connection);
        refusal(Store::open(dir.path(), DAY));
        let connection = Connection::open(dir.path().join(DATABASE)).unwrap();
        assert_eq!(version(&connection).unwrap().ok(), Some(1));
        connection.execute_batch("DROP TABLE scores").unwrap();
        drop(connection);
        assert_eq!(spells(&open(&dir)).len(), 2);
    }

    #[test]
    fn a_later_record_updates_and_forgets_nothing() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let foreseen = IncidentRecord {
            foreseen: Some(600.0),
            reasons: Some(json!(["leak"])),
            ..incident("db", 10, None)
        };
        store.upsert_incident(&foreseen).unwrap();
        store
            .upsert_incident(&incident("db", 10, Some(20)))
            .unwrap();
        let ended = IncidentRecord {
            end: Some(Timestamp(20)),
            ..foreseen
        };
        assert_eq!(store.incidents(EVER.0, EVER.1, 10).unwrap(), [ended]);
        let unwatched = incident("web", 5, Some(20));
        let missed = IncidentRecord {
            missed: true,
            ..unwatched.clone()
        };
        assert_eq!(
            (unwatched.verdict(), missed.verdict()),
            ("unwatched", "missed")
        );
        for record in [&unwatched, &missed, &unwatched] {
            store.upsert_incident(record).unwrap();
        }
        assert_eq!(store.incidents_of("web", 10).unwrap(), [missed]);

        let judged = AlarmRecord {
            outcome: Some("right".into()),
            lead_seconds: Some(3.5),
            ..alarm("db", 5)
        };
        store.upsert_alarm(&judged).unwrap();
        store
            .upsert_alarm(&AlarmRecord {
                reasons: None,
                ..alarm("db", 5)
            })
            .unwrap();
        assert_eq!(store.alarms(EVER.0, 10).unwrap(), [judged]);
    }

    #[test]
    fn retention_deletes_only_what_is_over_for_long() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let day = millis(DAY);
        store
            .record_alerts(
                Timestamp(2 * day),
                &[
                    alert("old", 0, Some(10)),
                    alert("open", 0, None),
                    alert("long", 0, Some(day)),
                ],
            )
            .unwrap();
        store
            .write_cycle(
                &[incident("a", 0, Some(10)), incident("a", day, None)],
                &[alarm("a", 0), alarm("a", day)],
                &nothing(),
            )
            .unwrap();
        let pruned = store
            .prune(Timestamp(2 * day), Timestamp(0), u64::MAX)
            .unwrap();
        assert_eq!((pruned.expired, pruned.surplus), (3, 0));
        let left: Vec<_> = spells(&store).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(left, ["long", "open"]);
        assert_eq!(
            store.incidents(EVER.0, EVER.1, 10).unwrap(),
            [incident("a", day, None)]
        );
        assert_eq!(store.alarms(EVER.0, 10).unwrap(), [alarm("a", day)]);
    }

    #[test]
    fn a_state_that_is_too_large_loses_its_oldest_and_nothing_that_is_needed() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let alerts: Vec<_> = (0..8000)
            .map(|i| ReceivedAlert {
                annotations: BTreeMap::from([("summary".into(), "x".repeat(500))]),
                ..alert(&i.to_string(), i, (i % 10 != 0).then_some(i + 5))
            })
            .collect();
        for part in alerts.chunks(500) {
            store.record_alerts(Timestamp(5), part).unwrap();
        }
        store
            .write_cycle(
                &[incident("a", 0, Some(10)), incident("b", 0, None)],
                &[alarm("a", 0), alarm("a", 7000)],
                &nothing(),
            )
            .unwrap();
        let prune = |needed, max| {
            let (now, needed) = (Timestamp(8000), Timestamp(needed));
            store.prune(now, needed, max).unwrap()
        };
        assert_eq!(prune(6000, store.size()), Pruned::default());

        let max = store.size() / 2;
        assert!(prune(6000, max).surplus > 2000);
        assert!(store.size() <= max, "{} of {max}", store.size());
        let left: HashSet<_> = spells(&store).into_iter().map(|(name, ..)| name).collect();
        let gone = alerts.iter().filter(|a| !left.contains(&a.fingerprint));
        let gone: Vec<_> = gone.collect();
        let newest = gone.iter().map(|a| a.starts_at.0).max().unwrap();
        assert!(gone.iter().all(|a| a.status == AlertStatus::Resolved));
        assert!(newest < 6000, "{newest}");
        let kept = alerts.iter().filter(|a| a.ends_at.is_some());
        let mut kept = kept.filter(|a| left.contains(&a.fingerprint));
        assert!(kept.all(|a| a.starts_at.0 + 5 >= newest));
        assert_eq!(
            store.incidents(EVER.0, EVER.1, 10).unwrap(),
            [incident("b", 0, None)]
        );
        assert_eq!(store.alarms(EVER.0, 10).unwrap(), [alarm("a", 7000)]);

        // All that is left is needed.
        prune(6000, 1);
        assert_eq!(prune(6000, 1), Pruned::default());
        assert!(spells(&store).iter().any(|(name, ..)| name == "6001"));
        let is_over = |a: &&ReceivedAlert| a.ends_at.is_some_and(|end| end.0 < 6000);
        let over = alerts.iter().filter(is_over).count() as u64;
        let again = store.record_alerts(Timestamp(5), &alerts).unwrap();
        assert_eq!(again.stored, over);
    }

    #[test]
    fn the_log_does_not_grow_for_ever_beside_a_reader() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let reader = Store::open_read_only(dir.path()).unwrap();
        let mut largest = 0;
        for round in 0..40 {
            let alerts: Vec<_> = (0..500)
                .map(|i| ReceivedAlert {
                    annotations: BTreeMap::from([("summary".into(), "x".repeat(1000))]),
                    ..alert(&format!("{round}-{i}"), i, Some(i + 1))
                })
                .collect();
            store.record_alerts(Timestamp(5), &alerts).unwrap();
            assert_eq!(reader.alarms(EVER.0, 1).unwrap(), []);
            let log = dir.path().join("forewarn.db-wal").metadata().unwrap().len();
            largest = largest.max(log);
        }
        assert!(dir.path().join(DATABASE).metadata().unwrap().len() > 12 << 20);
        assert!(largest < 8 << 20, "{largest}");
    }

    #[test]
    fn one_writer_and_readers_beside_it() {
        let dir = TempDir::new().unwrap();
        assert!(
            refusal(Store::open_read_only(dir.path()))
                .contains("does not exist; `forewarn serve` makes it")
        );
        let store = open(&dir);
        let second = refusal(Store::open(dir.path(), DAY));
        assert!(
            second.contains("another forewarn is writing to"),
            "{second}"
        );
        assert!(
            second.contains(&dir.path().display().to_string()),
            "{second}"
        );

        let reader = Store::open_read_only(dir.path()).unwrap();
        assert_eq!(reader.scoreboard().unwrap(), None);
        store.write_cycle(&[], &[], &nothing()).unwrap();
        assert_eq!(reader.scoreboard().unwrap(), Some(Stored::default()));
        let error = reader.write_cycle(&[], &[], &nothing()).unwrap_err();
        assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
        drop(store);
        open(&dir);
    }

    #[test]
    fn writes_are_durable_and_the_file_says_whose_it_is() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let pragma = |name: &str| {
            store
                .read(|c| {
                    c.query_row(
                        &format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"),
                        [],
                        |r| r.get::<_, String>(0),
                    )
                })
                .unwrap()
        };
        for (name, expected) in [
            ("journal_mode", "wal".to_owned()),
            ("synchronous", "2".into()),
            ("foreign_keys", "1".into()),
            ("auto_vacuum", "2".into()),
            ("user_version", MIGRATIONS.len().to_string()),
            ("application_id", APPLICATION_ID.to_string()),
        ] {
            assert_eq!(pragma(name), expected, "{name}");
        }
    }

    #[test]
    fn files_that_are_not_ours_are_left_alone() {
        for (sql, expected) in [
            ("CREATE TABLE x (y)", "of another program"),
            ("PRAGMA application_id = 7", "of another program"),
            ("PRAGMA user_version = -1", "of another program"),
            (
                "PRAGMA application_id = 1719104110; PRAGMA user_version = 99",
                "schema version 99, this forewarn writes version 4; run the newer",
            ),
        ] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join(DATABASE);
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            let before = std::fs::read(&path).unwrap();
            for result in [
                Store::open(dir.path(), DAY),
                Store::open_read_only(dir.path()),
            ] {
                let message = refusal(result);
                assert!(message.contains(expected), "{sql}: {message}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), before, "{sql}");
        }
    }

    #[test]
    fn an_empty_file_is_version_0() {
        let dir = TempDir::new().unwrap();
        File::create(dir.path().join(DATABASE)).unwrap();
        let message = refusal(Store::open_read_only(dir.path()));
        assert!(
            message.contains("schema version 0") && message.contains("start `forewarn serve` once"),
            "{message}"
        );
        open(&dir).write_cycle(&[], &[], &nothing()).unwrap();
        assert_eq!(open(&dir).scoreboard().unwrap(), Some(Stored::default()));
    }

    #[test]
    fn damage_is_found_at_open_with_a_way_out() {
        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage); 3] = [
            ("header", |file| file[..64].fill(b'x')),
            ("inside", |file| file[4096 * 2..].fill(0x5a)),
            ("cut off", |file| file.truncate(file.len() / 2)),
        ];
        for (case, damage) in damages {
            let dir = TempDir::new().unwrap();
            let store = open(&dir);
            let alerts: Vec<_> = (0..200).map(|i| alert(&i.to_string(), i, None)).collect();
            store.record_alerts(Timestamp(5), &alerts).unwrap();
            drop(store);
            let path = dir.path().join(DATABASE);
            let mut file = std::fs::read(&path).unwrap();
            damage(&mut file);
            std::fs::write(&path, file).unwrap();
            let message = refusal(Store::open(dir.path(), DAY));
            assert!(
                message.contains("is damaged (")
                    && message.contains(&format!("mv {}*", path.display())),
                "{case}: {message}"
            );
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_unavailable() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        // /proc refuses new files even to root.
        for place in [Path::new("/proc"), &file, &file.join("below")] {
            let error = Store::open(place, DAY).err().unwrap();
            assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
            assert!(
                error.to_string().contains(&place.display().to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_full_disk_refuses_whole_deliveries_and_heals() {
        let dir = TempDir::new().unwrap();
        let store = open(&dir);
        let limit = |pages: i64| {
            store
                .read(|c| {
                    c.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |r| {
                        r.get::<_, i64>(0)
                    })
                })
                .unwrap()
        };
        limit(1);
        let alerts: Vec<_> = (0..2000).map(|i| alert(&i.to_string(), i, None)).collect();
        let error = store.record_alerts(Timestamp(5), &alerts).unwrap_err();
        assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
        assert!(
            error.to_string().contains("check that the disk has space"),
            "{error}"
        );
        assert_eq!(spells(&store), []);
        limit(1_000_000);
        assert_eq!(
            store.record_alerts(Timestamp(6), &alerts).unwrap().stored,
            2000
        );
    }
}
