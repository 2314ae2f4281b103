//! The status page: one HTML document with its style and script inside, nothing loaded from anywhere.
//!
//! The server renders all of it for the query it is asked with, so it works without the script, which searches while one
//! types, loads the page anew and keeps place and focus.

mod ask;
mod overview;
mod parts;
mod quality;
mod target;

use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use self::ask::Ask;
use self::parts::{ago, encoded, horizon_of, time};
use super::happenings::{self, Happening};
use super::{App, Serving, blocking, html};
use crate::assessment::Snapshot;
use crate::learning;
use crate::metrics::ModelCard;
use crate::report::escaped;
use crate::time::{Timestamp, format_duration};
use crate::types::{Shard, TargetState};

const STYLE: &str = include_str!("../assets/page.css");
const SCRIPT: &str = include_str!("../assets/page.js");

/// The page runs its own script and style only; it loads itself, nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        hash(SCRIPT),
        hash(STYLE),
    )
});

/// How often the page loads itself anew, at least and at most.
const REFRESH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What the page tells.
struct View<'a> {
    serving: &'a Serving,
    snapshot: Option<&'a Snapshot>,
    card: Option<&'a ModelCard>,
    shard: Shard,
    /// Why the model cannot score what the config describes.
    misfit: Option<String>,
    /// Of the target that is asked for; `None` with state off.
    happenings: Option<Result<Vec<Happening>, String>>,
    started_at: Timestamp,
    now: Timestamp,
    ask: Ask,
}

/// The status page
#[utoipa::path(get, path = "/", tag = "pages", responses((status = 200, body = String, content_type = "text/html; charset=utf-8", description = "The page")))]
pub async fn status(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let ask = Ask::of(query.as_deref().unwrap_or_default());
    let (status, page) = blocking(move || answer(&app, ask)).await;
    let mut response = html(page, POLICY.as_str());
    *response.status_mut() = status;
    response
}

fn answer(app: &App, ask: Ask) -> (StatusCode, String) {
    let serving = app.serving.load_full();
    let model = serving.model.as_deref();
    let card = serving.card();
    let now = (app.clock)();
    let snapshot = serving.snapshot.as_deref();
    let found = ask
        .target
        .as_deref()
        .filter(|target| snapshot.is_some_and(|snapshot| snapshot.find(target).is_some()));
    let status = match (&ask.target, found) {
        (Some(_), None) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    let happenings = found.zip(app.store.as_ref()).map(|(target, store)| {
        happenings::of_target(store, &serving.config, target, now)
            .map_err(|error| error.to_string())
    });
    let view = View {
        serving: &serving,
        snapshot,
        card: card.as_ref(),
        shard: app.shard,
        misfit: model.and_then(|bundle| learning::misfit(bundle, &serving.config)),
        happenings,
        started_at: app.started_at,
        now,
        ask,
    };
    (status, render(&view))
}

fn render(view: &View) -> String {
    let mut out = String::with_capacity(128 * 1024);
    let step = view.serving.config.step;
    let refresh = (step / 2).clamp(REFRESH.0, REFRESH.1).as_secs();
    let opened = view.ask.target.as_deref().and_then(|name| {
        let found = view.snapshot?.find(name);
        Some((name, found))
    });
    let title = match opened {
        Some((name, found)) => {
            let risk = found.and_then(|assessment| assessment.risk.as_ref());
            let said = risk.map_or(String::new(), |r| parts::percent(r.probability) + " ");
            format!("{said}{} · forewarn", parts::short(name))
        }
        None => overview::title(view),
    };
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"{}\"></noscript>\n<title>{}</title>\n<link rel=\"icon\" href=\"{}\">\n\
         <style>{STYLE}</style>\n</head>\n<body data-refresh=\"{refresh}\">\n",
        refresh.max(10),
        escaped(&title),
        overview::icon(view),
    );
    header(&mut out, view);
    out.push_str("<main id=\"main\">\n<div id=\"notes\" data-live>\n");
    for (class, note) in notes(view) {
        let _ = writeln!(out, "<p class=\"note {class}\">{note}</p>");
    }
    out.push_str("</div>\n");
    match opened {
        Some((_, Some(assessment))) => target::page(&mut out, view, assessment),
        Some((name, None)) => {
            target::unknown(&mut out, view, name);
            overview::page(&mut out, view);
        }
        None => overview::page(&mut out, view),
    }
    let _ = write!(
        out,
        "</main>\n<footer>forewarn {}, running since {}. The page shows the newest cycle and loads itself anew every {refresh} s. Times are UTC.</footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        time(view.started_at, view.now),
    );
    out
}

fn header(out: &mut String, view: &View) {
    out.push_str("<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header>\n<p class=\"brand\"><a href=\"./\">forewarn</a></p>\n<p id=\"asof\" data-live>");
    if let Some(snapshot) = view.snapshot {
        let _ = write!(
            out,
            "Cycle of {}, {}",
            time(snapshot.at, view.now),
            ago(snapshot.at, view.now),
        );
    }
    if view.shard.count() > 1 {
        let _ = write!(out, " · {}", view.shard);
    }
    out.push_str("</p>\n");
    if let Some(grafana) = &view.serving.config.page.grafana_url {
        let grafana = escaped(grafana);
        let _ = writeln!(
            out,
            "<nav aria-label=\"Dashboards\">Grafana: <a rel=\"noreferrer\" href=\"{grafana}/d/forewarn-fleet\">fleet</a> \
             <a rel=\"noreferrer\" href=\"{grafana}/d/forewarn-quality\">quality</a> \
             <a rel=\"noreferrer\" href=\"{grafana}/d/forewarn-health\">health</a></nav>",
        );
    }
    out.push_str(
        "<nav aria-label=\"Interfaces\"><a href=\"docs\">API</a> <a href=\"metrics\">metrics</a> \
         JSON: <a href=\"api/v1/targets\">targets</a> <a href=\"api/v1/incidents\">incidents</a> <a href=\"api/v1/alerts\">alerts</a> \
         <a href=\"api/v1/model\">model</a> <a href=\"api/v1/scoreboard\">scoreboard</a></nav>\n</header>\n\
         <p id=\"lost\" class=\"note bad\" role=\"alert\" hidden></p>\n",
    );
}

/// What keeps what stands below from being what a reader would take it for: how bad it is, and the text.
fn notes(view: &View) -> Vec<(&'static str, String)> {
    let mut notes = Vec::new();
    let mut note = |class, text: String| notes.push((class, text));
    let config = &view.serving.config;
    match (view.card, &view.misfit, view.snapshot) {
        (None, _, _) => note(
            "bad",
            format!(
                "<b>No model is loaded: nothing is scored.</b> Train one with <code>forewarn train</code>, or put one under <code>{}</code>; it is taken up by itself.",
                escaped(&config.model.path.display().to_string()),
            ),
        ),
        (_, Some(why), _) => note(
            "bad",
            format!(
                "<b>The model does not fit the config: no target is scored.</b> {}. <code>/predict</code> answers with the model's own signals. \
                 Train a new one with <code>forewarn train</code>.",
                escaped(why),
            ),
        ),
        (Some(_), None, None) => note(
            "warn",
            "<b>The first cycle is not done yet.</b> It reads the history that the features need; the page fills by itself.".into(),
        ),
        (Some(_), None, Some(snapshot)) => troubles(view, snapshot, &mut note),
    }
    if view
        .card
        .is_some_and(|card| card.model_origin == "simulated")
    {
        note(
            "warn",
            "<b>The model was trained on simulated targets.</b> It shows how forewarn works; its probabilities say little about real hosts, and the shipped rules never page on it. \
             <code>forewarn train</code> makes one of your own history.".into(),
        );
    }
    if view.shard.count() > 1 {
        note(
            "info",
            format!(
                "This is {}: it shows its own targets only, and the scoreboard is of those.",
                view.shard
            ),
        );
    }
    if !config.state.enabled {
        note(
            "info",
            "State is off (<code>state.enabled: false</code>): incidents and alerts are not kept, and the scoreboard begins anew at each start.".into(),
        );
    }
    notes
}

fn troubles(view: &View, snapshot: &Snapshot, note: &mut impl FnMut(&'static str, String)) {
    let config = &view.serving.config;
    let step = config.step;
    let age = view.now.minus(config.query_offset).since(snapshot.at);
    if age > 3 * step + Duration::from_secs(30) {
        note(
            "bad",
            format!(
                "<b>The last cycle is {} old:</b> a step is {}. What stands below may no longer hold; the log of forewarn says why it does not go on.",
                parts::rough(age),
                format_duration(step),
            ),
        );
    }
    let all = snapshot.assessments.len();
    let of = |state| {
        let in_state = snapshot.assessments.iter().filter(|a| a.state == state);
        in_state.count()
    };
    if !snapshot.prometheus_up {
        note(
            "bad",
            "<b>Prometheus does not answer: no target is scored.</b> Check <code>prometheus.url</code>; <code>forewarn check queries</code> says what is wrong.".into(),
        );
    } else if all == 0 {
        note(
            "bad",
            format!(
                "<b>The queries return no target.</b> A target is a value of the label <code>{}</code> (<code>targets.label</code>) on a series of a signal. \
                 <code>forewarn check queries</code> shows what each query returns.",
                escaped(&config.targets.label.join(", ")),
            ),
        );
    } else if 2 * of(TargetState::WarmingUp) > all {
        note(
            "warn",
            format!(
                "<b>{} of {all} targets are warming up.</b> They get a probability once a quarter of the lookback has samples (<code>features.min_coverage</code>).",
                of(TargetState::WarmingUp),
            ),
        );
    } else if 2 * of(TargetState::MissingData) > all {
        note(
            "bad",
            format!(
                "<b>{} of {all} targets lack data:</b> fewer than <code>features.min_signals</code> of their signals have a recent sample. \
                 <code>forewarn check queries</code> shows which.",
                of(TargetState::MissingData),
            ),
        );
    }
}

/// Link to a dashboard of one target.
fn dashboard_of(view: &View, target: &str) -> Option<String> {
    let grafana = view.serving.config.page.grafana_url.as_deref()?;
    let target = encoded(target)?;
    Some(escaped(&format!(
        "{grafana}/d/forewarn-target?var-target={target}"
    )))
}

fn within(view: &View) -> String {
    view.card.map_or(String::new(), |card| {
        format!(" within {}", horizon_of(card))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assessment::{Assessment, Live, Reason, Risk};
    use crate::model::Score;
    use crate::scoreboard::Summary;
    use crate::server::happenings::Kind;
    use crate::server::tests::app;
    use crate::types::{RiskLevel, Signal, TargetId, Unit};

    fn assessment(target: &str, probability: Option<f64>) -> Assessment {
        Assessment {
            target: TargetId::new(target),
            labels: [("service".into(), format!("of {target}"))].into(),
            live: Live::of_nothing(),
            course: Default::default(),
            state: probability.map_or(TargetState::Failing, |_| TargetState::Ok),
            risk: probability.map(|probability| Risk {
                probability,
                score: Score::default(),
                level: match probability {
                    0.8.. => RiskLevel::Critical,
                    _ => RiskLevel::Minimal,
                },
                shadow: None,
                reasons: vec![Reason {
                    feature: "a<b".into(),
                    value: None,
                    contribution: 0.5,
                }],
            }),
        }
    }

    fn snapshot(mut assessments: Vec<Assessment>) -> Snapshot {
        assessments.sort_by(|a, b| a.target.cmp(&b.target));
        Snapshot {
            at: Timestamp(0),
            prometheus_up: true,
            shard: Shard::WHOLE,
            assessments,
            scoreboard: Summary::default(),
            shadow: None,
            drift: None,
        }
    }

    fn card(origin: &str) -> ModelCard {
        ModelCard {
            model_id: "m".into(),
            model_origin: origin.into(),
            horizon_seconds: 1800.0,
            step_seconds: 60.0,
            trained_until: String::new(),
            trained: Timestamp(0),
            alert_threshold: 0.5,
            base_rate: 0.01,
            signals: vec![Signal {
                name: "cpu_usage".into(),
                unit: Unit::Percent,
            }],
            features: Vec::new(),
        }
    }

    fn asked(snapshot: &Snapshot, query: &str) -> String {
        let app = app();
        let serving = app.serving.load_full();
        render(&View {
            serving: &serving,
            snapshot: Some(snapshot),
            card: Some(&card("history")),
            shard: Shard::WHOLE,
            misfit: None,
            happenings: None,
            started_at: Timestamp(0),
            now: Timestamp(0),
            ask: Ask::of(query),
        })
    }

    fn place(page: &str, text: &str) -> usize {
        page.find(text)
            .unwrap_or_else(|| panic!("no {text} in {page}"))
    }

    #[test]
    fn targets_stand_by_risk_and_are_escaped() {
        let snapshot = snapshot(vec![
            assessment("<script>alert('x')</script>", Some(0.2)),
            assessment("down", None),
            assessment("worst", Some(0.7)),
        ]);
        let page = asked(&snapshot, "");
        let rows = &page[place(&page, "<tbody>")..];
        let name = |name: &str| place(rows, &format!("<bdi>{name}</bdi>"));
        assert!(name("down") < name("worst"));
        assert!(name("worst") < name("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
        assert_eq!(page.matches("<script").count(), 1, "the page's own");
        assert!(page.contains("<bdi>worst</bdi> is likely to fail within 30m"));
        let page = asked(&snapshot, "sort=-target&q=%22%3E%3Cimg");
        assert!(page.contains("value=\"&quot;&gt;&lt;img\""));
        assert!(page.contains("No target is like that"));
    }

    #[test]
    fn a_page_is_as_large_as_its_rows_however_many_targets_there_are() {
        let many = |n: usize| {
            let of = |i| assessment(&format!("host-{i:05}"), Some(0.3 * i as f64 / n as f64));
            snapshot((0..n).map(of).collect())
        };
        let (few, lots) = (asked(&many(60), ""), asked(&many(6000), ""));
        assert!(lots.len() < few.len() + 2000);
        let lots = many(6000);
        let page = asked(&lots, "page=2");
        assert!(page.contains("6,000 targets, 51 to 100 are shown"));
        assert!(page.contains("<bdi>host-05949</bdi>") && !page.contains("<bdi>host-05950</bdi>"));
        assert!(page.contains("href=\"./?page=3#targets\"") && page.contains("Page 2 of 120"));
        let page = asked(&lots, "page=999&sort=target&q=OF+host-0000");
        assert!(page.contains("10 targets of 6,000."));
        assert!(!page.contains("class=\"pages\""));
        let page = asked(
            &lots,
            "show=failing&show=MINIMAL&page=999999999999999999999",
        );
        assert!(page.contains("6,000 targets of 6,000, 1 to 50 are shown"));
    }

    #[test]
    fn a_target_has_a_page_of_its_own() {
        let snapshot = snapshot(vec![
            assessment("a/b c&d", Some(0.9)),
            assessment("down", None),
        ]);
        let link = "./?target=a%2Fb+c%26d";
        assert!(asked(&snapshot, "").contains(link));
        let page = asked(&snapshot, "target=a%2Fb+c%26d");
        for part in [
            "<title>90 % a/b c&amp;d · forewarn",
            "<h1><bdi>a/b c&amp;d</bdi></h1><b class=\"big\">90 %</b>",
            "href=\"api/v1/targets/a%2Fb%20c%26d\"",
            "State is off",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert!(asked(&snapshot, "target=down").contains("It is failing now"));
        let gone = asked(&snapshot, "target=%3Cb%3E");
        assert!(gone.contains("<bdi>&lt;b&gt;</bdi> is not among the targets"));
        assert!(gone.contains("<tbody>"), "the others stand below");
    }

    #[test]
    fn a_failing_target_says_what_saw_it_fail() {
        let happening = |kind, name: &str, end| Happening {
            kind,
            name: Some(name.into()),
            start: Timestamp(0),
            end,
            verdict: Some("missed"),
            lead_seconds: None,
            probability: None,
        };
        let alerts = [
            happening(Kind::Alert, "Host<Down>", None),
            happening(Kind::Alert, "Over", Some(Timestamp(1))),
            Happening {
                verdict: None,
                ..happening(Kind::Alert, "HighFailureProbability", None)
            },
        ];
        let of = |source: &str| {
            let incident = happening(Kind::Incident, source, None);
            [vec![incident], alerts.to_vec()].concat()
        };
        let past = happening(Kind::Incident, "query", Some(Timestamp(1)));
        let app = app();
        let serving = app.serving.load_full();
        let snapshot = snapshot(vec![assessment("down", None)]);
        let page = |queries: &[&str], happenings| {
            let mut config = (*serving.config).clone();
            config.failure.queries = queries.iter().map(ToString::to_string).collect();
            render(&View {
                serving: &Serving {
                    config: Arc::new(config),
                    ..(*serving).clone()
                },
                snapshot: Some(&snapshot),
                card: Some(&card("history")),
                shard: Shard::WHOLE,
                misfit: None,
                happenings: Some(Ok(happenings)),
                started_at: Timestamp(0),
                now: Timestamp(0),
                ask: Ask::of("target=down"),
            })
        };
        for (queries, happenings, expected) in [
            (
                &["up < 1 "][..],
                of("query"),
                ". The failure query says so: <code>up &lt; 1</code>. It gets",
            ),
            (
                &["a", "b"],
                of("query"),
                ". One of the 2 failure queries says so. It gets",
            ),
            (
                &["a"],
                of("webhook"),
                ". An alert says so; open now: Host&lt;Down&gt;. It gets",
            ),
            (&["a"], vec![past], "It is failing now. It gets"),
        ] {
            let page = page(queries, happenings);
            assert!(page.contains(expected), "no {expected} in {page}");
        }
    }

    #[test]
    fn notes_say_what_is_wrong() {
        let app = app();
        let serving = app.serving.load_full();
        let (real, simulated) = (card("history"), card("simulated"));
        let fine = snapshot(vec![assessment("a", Some(0.1))]);
        let in_state = |state| {
            let a = Assessment {
                state,
                ..assessment("a", None)
            };
            snapshot(vec![a])
        };
        let (warming, lacking) = (
            in_state(TargetState::WarmingUp),
            in_state(TargetState::MissingData),
        );
        let none = snapshot(Vec::new());
        let down = Snapshot {
            prometheus_up: false,
            ..fine.clone()
        };
        let view = |snapshot, card| View {
            serving: &serving,
            snapshot,
            card,
            shard: Shard::WHOLE,
            misfit: None,
            happenings: None,
            started_at: Timestamp(0),
            now: Timestamp(0),
            ask: Ask::default(),
        };
        let state_is_off = "State is off";
        let page = render(&view(Some(&fine), Some(&real)));
        assert_eq!(page.matches("<p class=\"note").count(), 1, "{state_is_off}");
        let with = |change: &dyn Fn(&mut View)| {
            let mut view = view(Some(&fine), Some(&real));
            change(&mut view);
            render(&view)
        };
        for (page, note) in [
            (render(&view(None, None)), "No model is loaded"),
            (render(&view(None, Some(&real))), "first cycle is not done"),
            (
                render(&view(Some(&fine), Some(&simulated))),
                "simulated targets",
            ),
            (
                render(&view(Some(&down), Some(&real))),
                "Prometheus does not answer",
            ),
            (
                render(&view(Some(&none), Some(&real))),
                "no target.</b> A target is a value of the label <code>instance</code>",
            ),
            (
                render(&view(Some(&warming), Some(&real))),
                "1 of 1 targets are warming up",
            ),
            (
                render(&view(Some(&lacking), Some(&real))),
                "1 of 1 targets lack data",
            ),
            (
                with(&|view| view.now = Timestamp(600_000)),
                "The last cycle is 10m old",
            ),
            (
                with(&|view| view.shard = Shard::new(1, 3).unwrap()),
                "This is shard 1 of 3",
            ),
            (
                with(&|view| view.misfit = Some("step is 1m in the model".into())),
                "step is 1m in the model",
            ),
            (
                with(&|view| view.happenings = Some(Err("disk".into()))),
                state_is_off,
            ),
        ] {
            assert!(page.contains(note), "{note} in {page}");
        }
    }

    #[test]
    fn the_policy_lets_only_the_page_itself_run() {
        let policy = POLICY.as_str();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
        assert!(!policy.contains("unsafe"));
        let page = asked(&snapshot(vec![assessment("a", Some(0.9))]), "");
        assert!(
            !page.contains(" style="),
            "the policy forbids style attributes"
        );
        let outside = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(
            page.matches("http").count(),
            outside + page.matches("http-equiv").count()
        );
    }
}
