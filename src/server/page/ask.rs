//! What a reader asks for: the query of the page's address.

use crate::assessment::Assessment;
use crate::types::{RiskLevel, TargetState};

/// Longer search words are cut.
const LONGEST: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Level(RiskLevel),
    State(TargetState),
}

impl Show {
    /// The states with a probability are told by its level.
    pub fn all() -> impl Iterator<Item = Show> {
        let levels = [
            RiskLevel::Critical,
            RiskLevel::High,
            RiskLevel::Medium,
            RiskLevel::Low,
            RiskLevel::Minimal,
        ];
        let states = [
            TargetState::Failing,
            TargetState::Excluded,
            TargetState::OutOfDistribution,
            TargetState::MissingData,
            TargetState::WarmingUp,
            TargetState::Stale,
        ];
        levels
            .map(Show::Level)
            .into_iter()
            .chain(states.map(Show::State))
    }

    pub fn of(assessment: &Assessment) -> Self {
        match &assessment.risk {
            Some(risk) => Show::Level(risk.level),
            None => Show::State(assessment.state),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Show::Level(level) => level.name(),
            Show::State(state) => state.name(),
        }
    }

    pub fn words(self) -> String {
        self.name().replace('_', " ")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Risk,
    Target,
    Change,
    State,
}

impl Sort {
    pub const ALL: [Sort; 4] = [Sort::Target, Sort::Risk, Sort::Change, Sort::State];

    pub fn name(self) -> &'static str {
        match self {
            Sort::Risk => "risk",
            Sort::Target => "target",
            Sort::Change => "change",
            Sort::State => "state",
        }
    }
}

/// What is not understood is as if it were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// In lower case; part of a target or of a label's value.
    pub words: String,
    /// None: all.
    pub show: Vec<Show>,
    pub sort: Sort,
    /// The other way round.
    pub turned: bool,
    /// From 0.
    pub page: usize,
    pub target: Option<String>,
}

impl Ask {
    pub fn of(query: &str) -> Self {
        let mut ask = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "q" => ask.words = value.trim().chars().take(LONGEST).collect(),
                "show" => ask.show.extend(Show::all().find(|s| s.name() == value)),
                "sort" => {
                    let (turned, name) = match value.strip_prefix('-') {
                        Some(name) => (true, name),
                        None => (false, value.as_ref()),
                    };
                    if let Some(sort) = Sort::ALL.into_iter().find(|s| s.name() == name) {
                        (ask.sort, ask.turned) = (sort, turned);
                    }
                }
                "page" => ask.page = value.parse().unwrap_or(1_usize).saturating_sub(1),
                "target" => ask.target = Some(value.into_owned()),
                _ => {}
            }
        }
        ask
    }

    pub fn sort_value(&self) -> String {
        format!("{}{}", if self.turned { "-" } else { "" }, self.sort.name())
    }

    pub fn is_filtered(&self) -> bool {
        !self.words.is_empty() || !self.show.is_empty()
    }

    /// Relative to the page, without the target.
    pub fn href(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.words.is_empty() {
            query.append_pair("q", &self.words);
        }
        for show in &self.show {
            query.append_pair("show", show.name());
        }
        if (self.sort, self.turned) != Default::default() {
            query.append_pair("sort", &self.sort_value());
        }
        if self.page > 0 {
            query.append_pair("page", &(self.page + 1).to_string());
        }
        match query.finish() {
            query if query.is_empty() => "./".into(),
            query => format!("./?{query}"),
        }
    }

    pub fn matches(&self, assessment: &Assessment) -> bool {
        let words = self.words.to_lowercase();
        let holds = |text: &str| text.to_lowercase().contains(&words);
        (self.show.is_empty() || self.show.contains(&Show::of(assessment)))
            && (words.is_empty()
                || holds(assessment.target.as_str())
                || assessment.labels.iter().any(|(_, value)| holds(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_back_from_its_link() {
        let query = "q=a%26b+%3C&show=HIGH&show=missing_data&sort=-change&page=3";
        let ask = Ask::of(query);
        assert_eq!(ask.words, "a&b <");
        assert_eq!(ask.show.len(), 2);
        assert_eq!((ask.sort, ask.turned, ask.page), (Sort::Change, true, 2));
        assert_eq!(ask.href(), format!("./?{query}"));
        assert_eq!(Ask::default().href(), "./");
    }

    #[test]
    fn what_is_not_understood_does_not_count() {
        for query in [
            "page=-1&page=x",
            "show=ok&show=%ff",
            "sort=size",
            "=&&;%",
            "a=b",
        ] {
            assert_eq!(Ask::of(query), Ask::default(), "{query}");
        }
        assert_eq!(Ask::of("q=ä").words, "ä");
        assert_eq!(
            Ask::of(&format!("q={}", "ä".repeat(999)))
                .words
                .chars()
                .count(),
            LONGEST
        );
    }
}
