use std::collections::BTreeMap;
use std::time::Duration;

use forewarn::assessment::Reason;
use forewarn::bundle::{Manifest, Origin};
use forewarn::evaluation::report::{BaselineReport, LeadTime, ModeReport};
use forewarn::evaluation::{
    self, Baseline, EnsembleReport, Evaluation, Input, Rows, Scores, Track,
};
use forewarn::labels::{FailureRules, RowLabel};
use forewarn::learning;
use forewarn::report::{self, Case, Fitting, Kind, Review, Subject};
use forewarn::time::Timestamp;
use forewarn::training::LabelReport;
use forewarn::types::{Incident, TargetId};

use super::fleet::{bundle, card, report as fleet_report};

/// Fails unless the document is whole: tags balanced, nothing loaded from elsewhere, no number that is none.
pub fn check(html: &str) {
    const VOID: [&str; 5] = ["meta", "link", "br", "!doctype", "input"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = rest[start..].find('>').expect("a tag ends") + start;
        let tag = &rest[start + 1..end];
        let name = tag.split([' ', '\n']).next().expect("a tag has a name");
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "…{}", &rest[..end + 1]);
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        assert!(!tag.contains('<'), "{tag}");
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for wrong in [
        "http://", "https://", "url(", "@import", "<script", "src=", "NaN", "inf\"", "infM",
    ] {
        assert!(!html.contains(wrong), "the report contains {wrong}");
    }
    for anchor in html.split("href=\"#").skip(1) {
        let id = anchor.split('"').next().expect("an anchor ends");
        assert!(html.contains(&format!("id=\"{id}\"")), "{id} leads nowhere");
    }
    let drawings = html.matches("<svg role=\"img\"").count();
    assert_eq!(html.matches("<desc>").count(), drawings);
}

const SECTIONS: [&str; 20] = [
    "Incidents foreseen against false alarms",
    "Lead time",
    "Alarms per week against the threshold",
    "Precision and recall against the threshold",
    "<b>ROC</b>",
    "Precision and recall of rows",
    "<b>Reliability</b>",
    "<b>Scores</b>",
    "claimed<br>before",
    "share of gain",
    "mean |SHAP|, log-odds",
    "ensemble that never learned from them",
    "average precision<br>on time folds",
    "<dt>by month</dt><dd>2026-01 ",
    "Its alarms as a few rules",
    "False alarms",
    "Missed incidents",
    "id=\"targets\"",
    "Data and labels",
    "How to reproduce",
];

#[test]
fn the_report_of_a_trained_model_is_whole() {
    let html = fleet_report();
    check(html);
    for section in SECTIONS {
        assert!(html.contains(section), "{section} is missing");
    }
    let manifest = &bundle().manifest;
    for expected in [
        manifest.id.as_str(),
        "simulated fleet",
        "forewarn train --start 2026-01-05T00:00:00Z --end 2026-01-11T23:59:00Z --origin simulated",
        "incidents foreseen",
        "alarms a day to expect",
        "up{job=&quot;fleet&quot;} == 0",
    ] {
        assert!(html.contains(expected), "{expected} is missing");
    }
    // A false alarm or a missed incident with its signals.
    assert!(html.contains("around the alarm") || html.contains("around the incident"));
    assert!(html.contains("the odds ×"));
}

#[test]
fn the_card_says_what_the_report_says() {
    let card = card();
    for expected in [
        "`report.html` beside this file",
        "simulated fleet",
        "before calibration",
        "mean size of SHAP value",
        "search: the time folds chose xgboost with imbalance ",
        "held-out targets: on 2 targets, learned from all others, ROC AUC 0.",
        "by month: 2026-01 ",
        "Missed incidents with the highest probability",
        "forewarn train --start 2026-01-05T00:00:00Z",
    ] {
        assert!(card.contains(expected), "{expected}: {card}");
    }
    let sentence = card.split("**").nth(1).expect("a headline");
    assert!(
        fleet_report().contains(&report::escaped(sentence)),
        "{sentence}"
    );
    assert!(!card.contains("NaN"));
}

/// Two days; incidents every six hours, with a risen score before those that are to be foreseen.
struct Fleet {
    targets: usize,
    incidents: bool,
    foreseen: bool,
    false_alarms: bool,
    name: &'static str,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            targets: 4,
            incidents: true,
            foreseen: true,
            false_alarms: false,
            name: "host",
        }
    }
}

impl Fleet {
    fn evaluation(&self, threshold: Option<f64>, rival: bool) -> Evaluation {
        let minutes = 2 * 1440;
        let at = |minute: i64| Timestamp::from_secs(1_767_571_200 + 60 * minute);
        let starts: Vec<i64> = if self.incidents {
            (1..8).map(|i| 360 * i).collect()
        } else {
            Vec::new()
        };
        let before = |minute: i64| starts.iter().any(|s| (1..=30).contains(&(s - minute)));
        let lead = |minute: i64| starts.iter().any(|s| (1..=20).contains(&(s - minute)));
        let score = |minute: i64| {
            let wrong = self.false_alarms && (100..120).contains(&minute);
            if wrong || self.foreseen && lead(minute) {
                0.9
            } else {
                0.01
            }
        };
        let tracks: Vec<Track> = (0..self.targets)
            .map(|i| Track {
                target: TargetId::new(format!("{}-{i:03}", self.name)),
                times: (0..minutes).map(at).collect(),
                scores: (0..minutes).map(|m| Some(score(m))).collect(),
                labels: (0..minutes)
                    .map(|m| match before(m) {
                        true => RowLabel::Positive,
                        false => RowLabel::Negative,
                    })
                    .collect(),
                actions: Vec::new(),
                incidents: starts
                    .iter()
                    .map(|s| Incident {
                        start: at(*s),
                        end: None,
                    })
                    .collect(),
            })
            .collect();
        let scores: Scores = tracks
            .iter()
            .map(|_| {
                let known = |m: i64| if rival && lead(m) { 0.9 } else { 0.01 };
                (0..minutes).map(|m| Some(known(m))).collect()
            })
            .collect();
        let minute = Duration::from_secs(60);
        evaluation::evaluate(&Input {
            tracks: &tracks,
            members: &[("xgboost", scores.clone())],
            baselines: &[Baseline {
                name: "static_threshold",
                is_probability: false,
                scores,
            }],
            modes: &[],
            compared: &[],
            rules: &FailureRules {
                step: minute,
                min_duration: Duration::ZERO,
                merge_gap: Duration::ZERO,
                recovery: Duration::ZERO,
                horizon: 30 * minute,
            },
            for_: 5 * minute,
            threshold,
            budget: 0.5,
            seed: 1,
        })
    }
}

fn labels() -> LabelReport {
    LabelReport {
        start: "2026-01-05T00:00:00Z".into(),
        end: "2026-01-07T00:00:00Z".into(),
        targets: 0,
        rows: 0,
        positives: 0,
        positives_without_history: 0,
        incidents: 0,
        incidents_with_history: 0,
        base_rate: 0.0,
        uncertain: 0,
        excluded: 0,
        censored: 0,
        abstained: 0,
        failing_share: 0.0,
        coverage: BTreeMap::new(),
        incidents_by_target: BTreeMap::new(),
        incidents_by_month: BTreeMap::new(),
        incidents_by_source: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

fn manifest(origin: Origin, threshold: f64) -> Manifest {
    let mut manifest = bundle().manifest.clone();
    manifest.origin = origin;
    manifest.threshold.probability = threshold;
    manifest.threshold.false_alarms_per_target_week = 0.5;
    manifest
}

struct Told {
    html: String,
    card: String,
    sentence: String,
    cautions: String,
}

fn tell(evaluation: &Evaluation, manifest: &Manifest, kind: Kind, review: &Review) -> Told {
    let subject = Subject {
        kind,
        manifest,
        evaluation,
        labels: &labels(),
        fitting: None,
        importance: &[],
        review,
        surrogate: None,
    };
    let headline = report::headline(&subject);
    Told {
        html: report::render(&subject),
        card: learning::card(&subject, ""),
        sentence: headline.sentence,
        cautions: headline.cautions.join("\n"),
    }
}

fn told(fleet: &Fleet, threshold: Option<f64>) -> Told {
    let told = tell(
        &fleet.evaluation(threshold, false),
        &manifest(Origin::History, threshold.unwrap_or(1.0)),
        Kind::Training,
        &Review::default(),
    );
    check(&told.html);
    told
}

#[test]
fn the_headline_says_how_many_how_early_and_at_what_price() {
    let good = told(&Fleet::default(), Some(0.5));
    for expected in [
        "Of 28 incidents it foresaw 28 (100 %",
        "half of them at least 15m before",
        "0 of 28 alarms were false",
        "No one-line rule foresaw any within 0.50 false alarms per target-week.",
    ] {
        assert!(good.sentence.contains(expected), "{}", good.sentence);
    }
    assert_eq!(good.cautions, "");
    assert!(good.card.contains("The threshold 0.5000 kept within"));

    let noisy = Fleet {
        false_alarms: true,
        ..Fleet::default()
    };
    let noisy = told(&noisy, Some(0.5));
    assert!(
        noisy
            .sentence
            .contains("4 of 32 alarms were false (3.5 per")
    );
    assert!(noisy.cautions.contains("more false alarms than the budget"));
}

#[test]
fn the_headline_does_not_hide_what_speaks_against_the_model() {
    let fleet = Fleet::default();
    let training = Kind::Training;
    let overlap = Kind::Backtest {
        overlaps_training: true,
    };
    for (evaluation, manifest, kind, caution) in [
        (
            fleet.evaluation(Some(0.5), true),
            manifest(Origin::History, 0.5),
            training,
            "A one-line rule is as good: static thresholds foresaw 28 of 28",
        ),
        (
            Fleet {
                foreseen: false,
                ..Fleet::default()
            }
            .evaluation(Some(0.5), true),
            manifest(Origin::History, 0.5),
            training,
            "within 0.01 false alarms per target-week static thresholds 28, the model 0",
        ),
        (
            fleet.evaluation(Some(0.5), false),
            manifest(Origin::Simulated, 0.5),
            training,
            "trained on a simulated fleet",
        ),
        (
            fleet.evaluation(Some(0.5), false),
            manifest(Origin::History, 0.5),
            overlap,
            "overlaps the one that the model has learned from",
        ),
        (
            Fleet {
                targets: 1,
                ..Fleet::default()
            }
            .evaluation(Some(0.5), false),
            manifest(Origin::History, 0.5),
            training,
            "7 incidents are too few to trust",
        ),
        (
            Fleet {
                foreseen: false,
                ..Fleet::default()
            }
            .evaluation(Some(0.5), false),
            manifest(Origin::History, 0.5),
            training,
            "no better than always answering the base rate",
        ),
    ] {
        let told = tell(&evaluation, &manifest, kind, &Review::default());
        check(&told.html);
        assert!(told.cautions.contains(caution), "{}", told.cautions);
        assert!(told.html.contains(&report::escaped(caution)));
        assert!(told.card.contains(caution));
    }
}

/// The rival of [`Fleet::evaluation`] as something other than a rule.
fn beside(foreseen: bool, place: impl FnOnce(&mut Evaluation, BaselineReport)) -> Evaluation {
    let fleet = Fleet {
        foreseen,
        ..Fleet::default()
    };
    let mut evaluation = fleet.evaluation(Some(0.5), true);
    let rival = evaluation.baselines.remove("static_threshold");
    place(&mut evaluation, rival.expect("a rival"));
    evaluation
}

#[test]
fn the_oracle_is_a_measure_and_no_rule() {
    let manifest = manifest(Origin::History, 0.5);
    for (foreseen, share) in [(false, "0 %"), (true, "100 %")] {
        let evaluation = beside(foreseen, |evaluation, one| evaluation.oracle = Some(one));
        let told = tell(&evaluation, &manifest, Kind::Training, &Review::default());
        check(&told.html);
        assert!(told.sentence.contains("No one-line rule foresaw any"));
        assert!(!told.cautions.contains("rule"), "{}", told.cautions);
        let words = format!(
            "foresaw {} incidents where the oracle foresees 28 within 0.50 false alarms per target-week ({share})",
            if foreseen { 28 } else { 0 }
        );
        assert!(told.html.contains(&words) && told.card.contains(&words));
        // In all three charts and their legends, and in the tables.
        assert_eq!(told.html.matches("line oracle\"").count(), 6);
        for row in ["oracle", "oracle, precision 0.89", "oracle, same budget"] {
            let row = format!("<th scope=\"row\">{row}</th>");
            assert!(told.html.contains(&row), "{row}");
        }
    }
    let without = tell(
        &Fleet::default().evaluation(Some(0.5), true),
        &manifest,
        Kind::Training,
        &Review::default(),
    );
    assert!(!without.html.contains("The oracle") && !without.card.contains("oracle"));
}

#[test]
fn what_it_is_compared_with_stands_beside_it_by_name() {
    let evaluation = beside(false, |evaluation, one| {
        evaluation.compared.insert("<our> rule".into(), one);
    });
    let told = tell(
        &evaluation,
        &manifest(Origin::History, 0.5),
        Kind::Training,
        &Review::default(),
    );
    check(&told.html);
    assert!(told.sentence.contains("No one-line rule foresaw any"));
    assert!(
        told.cautions
            .contains("<our> rule, which it is compared with, is as good: it foresaw 28 of 28")
    );
    assert!(
        told.html
            .contains("<th scope=\"row\">&lt;our&gt; rule</th>")
    );
}

#[test]
fn failure_modes_are_told_apart_where_there_are_several() {
    let mode = |incidents, foreseen| ModeReport {
        incidents,
        foreseen,
        recall: Some(foreseen as f64 / incidents as f64),
        right: foreseen,
        early: 0,
        lead_time_seconds: LeadTime {
            p10: None,
            p50: Some(900.0),
            p90: None,
        },
    };
    let mut evaluation = beside(true, |evaluation, mut one| {
        one.at_threshold.foreseen_by_failure_mode = [("<leak>".to_string(), 13)].into();
        evaluation
            .baselines
            .insert("persistence".into(), one.clone());
        one.at_threshold.foreseen_by_failure_mode = [("<leak>".to_string(), 17)].into();
        evaluation.oracle = Some(one);
    });
    let manifest = manifest(Origin::History, 0.5);
    let mut html = |name: &str, one: ModeReport| {
        evaluation.by_failure_mode.insert(name.into(), one);
        let html = tell(&evaluation, &manifest, Kind::Training, &Review::default()).html;
        check(&html);
        html
    };
    assert!(!html("disk", mode(8, 2)).contains("Failure modes"));
    let html = html("<leak>", mode(20, 15));
    assert!(
        html.contains(
            "foreseen by<br>“it failed lately”</th><th scope=\"col\">foreseen by<br>oracle"
        )
    );
    for row in [
        "disk</th><td>8</td><td>2</td><td>25 %</td><td>15m</td><td>0</td><td>0</td>",
        "&lt;leak&gt;</th><td>20</td><td>15</td><td>75 %</td><td>15m</td><td>13</td><td>17</td>",
    ] {
        assert!(html.contains(row), "{row}");
    }
}

#[test]
fn what_was_not_measured_is_said_with_its_reason() {
    let nothing = EnsembleReport::new(&Rows::new([]));
    let evaluation = Fleet::default().evaluation(Some(0.5), false);
    for (origin, targets, words) in [
        (Origin::History, 4, "that takes five targets at least"),
        (Origin::History, 5, "no positive row in the last slice"),
        (Origin::Imported, 5, "the trees were fitted elsewhere"),
    ] {
        let mut labels = labels();
        labels.targets = targets;
        labels.warnings = vec!["a <signal> has no sample".into()];
        let subject = Subject {
            kind: Kind::Training,
            manifest: &manifest(origin, 0.5),
            evaluation: &evaluation,
            labels: &labels,
            fitting: Some(Fitting {
                snapshot: &nothing,
                held_out: None,
                trials: &[],
            }),
            importance: &[],
            review: &Review::default(),
            surrogate: None,
        };
        let html = report::render(&subject);
        check(&html);
        assert!(html.contains("<p>Search: none, "));
        assert!(html.contains("<li>a &lt;signal&gt; has no sample</li>"));
        let line = report::fitted(&subject).expect("fitting is told");
        for text in [html, line] {
            assert!(
                text.contains("not measured, ") && text.contains(words),
                "{text}"
            );
        }
    }
}

#[test]
fn a_report_of_little_or_nothing_is_whole_too() {
    let calm = Fleet {
        incidents: false,
        ..Fleet::default()
    };
    let nobody = Fleet {
        targets: 0,
        ..Fleet::default()
    };
    for (fleet, threshold, words) in [
        (
            &calm,
            Some(0.5),
            "No incident fell into the evaluated range",
        ),
        (
            &nobody,
            Some(0.5),
            "No incident fell into the evaluated range",
        ),
        (&Fleet::default(), None, "This model does not alert"),
        (&Fleet::default(), Some(0.99), "It raised no alarm at all"),
    ] {
        let told = told(fleet, threshold);
        let sentence = told.sentence.to_lowercase();
        assert!(sentence.contains(&words.to_lowercase()), "{sentence}");
        assert!(told.html.contains("There was no alarm."));
        if threshold.is_none() {
            assert!(told.card.contains("this model does not alert"));
        }
    }
    assert!(
        told(&nobody, Some(0.5))
            .html
            .contains("There is no target.")
    );
}

#[test]
fn a_large_fleet_is_cut_and_the_cut_is_said() {
    let crowd = Fleet {
        targets: 260,
        ..Fleet::default()
    };
    let html = told(&crowd, Some(0.5)).html;
    assert_eq!(html.matches("<th scope=\"row\">host-").count(), 200);
    assert!(html.contains("The first 200 of 260"));
}

#[test]
fn names_are_text_and_never_markup() {
    let evil = Fleet {
        name: "<script>alert('1')</script>&\"",
        ..Fleet::default()
    };
    let mut manifest = manifest(Origin::History, 0.5);
    manifest.signals[0].query = "a<b & \"c\"".into();
    manifest.label.queries = vec!["<up>".into()];
    let name = format!("{}-000", evil.name);
    let case = Case {
        target: name.clone(),
        at: Timestamp(0),
        probability: Some(0.9),
        seen_at: Timestamp(0),
        reasons: vec![Reason {
            feature: "<img>".into(),
            value: Some(1.0),
            contribution: 0.5,
        }],
        span: (-60.0, 60.0),
        probabilities: vec![[-60.0, f64::NAN], [0.0, f64::INFINITY], [60.0, 0.9]],
        signals: vec![(manifest.signals[0].signal.clone(), vec![[0.0, f64::NAN]])],
        alarms: vec![0.0],
        incidents: vec![[0.0, 60.0]],
    };
    let review = Review {
        false_alarms: vec![case.clone()],
        missed: vec![Case {
            probability: None,
            reasons: Vec::new(),
            probabilities: Vec::new(),
            signals: Vec::new(),
            span: (0.0, 0.0),
            ..case
        }],
        missed_total: 1,
        ..Review::default()
    };
    let told = tell(
        &evil.evaluation(Some(0.5), false),
        &manifest,
        Kind::Training,
        &review,
    );
    check(&told.html);
    for raw in ["<script", "<img", "<up>", "a<b"] {
        assert!(!told.html.contains(raw), "{raw}");
    }
    assert!(told.html.contains(&report::escaped(&name)));
}
