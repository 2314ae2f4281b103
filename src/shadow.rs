//! A candidate that scores beside the served model: it is judged, but pages nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::assessment::{Assessment, ShadowBoard};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::evaluation::AlarmRule;
use crate::learning;
use crate::scoreboard::Scoreboard;
use crate::state::{StateError, Store};
use crate::time::Timestamp;
use crate::training::Plan;
use crate::types::TargetId;

/// Its state stands beside the served model's, one folder a candidate.
const FOLDER: &str = "shadow-";

pub struct Shadow {
    bundle: Arc<Bundle>,
    scoreboard: Scoreboard,
    store: Option<Store>,
}

impl Shadow {
    /// Goes on where the same candidate was left; what other candidates have left is deleted.
    pub fn open(bundle: Arc<Bundle>, config: &Config, plan: &Plan) -> Result<Self, StateError> {
        let rule = learning::alarm_rule(&bundle, plan);
        let retention = config.state.retention;
        let mut scoreboard = Scoreboard::new(rule, retention);
        let mut store = None;
        if config.state.enabled {
            let folder = format!("{FOLDER}{}", bundle.manifest.id);
            let opened = Store::open(&config.state.path.join(&folder), retention)?;
            if let Some(restored) = restored(&opened, rule, retention)? {
                scoreboard = restored;
            }
            forget_others(&config.state.path, &folder);
            store = Some(opened);
        }
        Ok(Self {
            bundle,
            scoreboard,
            store,
        })
    }

    pub fn id(&self) -> &str {
        &self.bundle.manifest.id
    }

    /// Goes on under another config.
    pub fn renew(&mut self, config: &Config, plan: &Plan) {
        let rule = learning::alarm_rule(&self.bundle, plan);
        self.scoreboard.set_rule(rule, config.state.retention);
    }

    /// Tells its scoreboard what happened: the assessments, when the newest incident of each target began, and who was acted on.
    pub fn judge(
        &mut self,
        t: Timestamp,
        assessments: &[Assessment],
        incidents: &[Option<Timestamp>],
        actions: &[(TargetId, Timestamp)],
    ) {
        for (assessment, incident) in assessments.iter().zip(incidents) {
            let probability = assessment.risk.as_ref().and_then(|risk| risk.shadow);
            self.scoreboard
                .observe(t, &assessment.target, probability, *incident);
        }
        for (target, at) in actions {
            self.scoreboard.act(target, *at);
        }
        self.scoreboard.tick(t);
        if let Some(store) = &self.store {
            let written = self
                .scoreboard
                .changes()
                .map(|changes| store.write_cycle(&[], &[], &changes));
            match written {
                Ok(Ok(())) => self.scoreboard.stored(),
                Ok(Err(error)) => warn!(
                    "the shadow's scoreboard is not stored, the next cycle tries again: {error}"
                ),
                Err(error) => warn!("cannot write the shadow's scoreboard: {error}"),
            }
        }
    }

    pub fn board(&self) -> ShadowBoard {
        ShadowBoard {
            model_id: self.id().to_owned(),
            summary: self.scoreboard.summary(),
        }
    }
}

/// The scoreboard that a store has; one that cannot be read is told and counts as none.
pub fn restored(
    store: &Store,
    rule: AlarmRule,
    retention: Duration,
) -> Result<Option<Scoreboard>, StateError> {
    let stored = store.scoreboard()?;
    match stored.map(|stored| Scoreboard::restore(&stored, rule, retention)) {
        Some(Ok(restored)) => Ok(Some(restored)),
        Some(Err(error)) => {
            warn!("the stored scoreboard cannot be read and starts anew: {error}");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// What cannot be deleted only takes space.
fn forget_others(state: &Path, folder: &str) {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(FOLDER) && name != *folder {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
