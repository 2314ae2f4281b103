//! Why a target's probability is what it is, and what to do about it.

use super::predict::drivers;
use crate::assessment::{Assessment, Reason};
use crate::bundle::Bundle;
use crate::risk::recommendations;
use crate::types::ServeMember;

/// Reasons given.
const REASONS: usize = 10;

pub struct Advice {
    /// Strongest first.
    pub reasons: Vec<Reason>,
    /// The most urgent first.
    pub recommendations: Vec<String>,
}

impl Advice {
    /// `None` for a target without a probability. `bundle` must be what scored it.
    pub fn of(assessment: &Assessment, bundle: &Bundle, serve: ServeMember) -> Option<Self> {
        let risk = assessment.risk.as_ref()?;
        let features = {
            let live = assessment.live.read();
            let window = live.window();
            bundle.features(window, window.newest()?)
        };
        let reasons = bundle.explain_served(serve, &features, true, REASONS);
        let catalogue = &bundle.catalogue;
        let drivers = drivers(
            &reasons,
            |feature| catalogue.signals_of(feature),
            catalogue.signals(),
            &features,
        );
        let alarms = bundle.manifest.threshold.is_reached(risk.probability);
        let horizon = bundle.manifest.horizon();
        let recommendations = recommendations(risk.level, alarms, horizon, &drivers);
        Some(Self {
            reasons,
            recommendations,
        })
    }
}
