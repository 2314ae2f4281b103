//! Progress on stderr.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Between two signs of life where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(200);
const PARTS: u64 = 1000;

type Stage = Arc<Mutex<Option<(String, ProgressBar)>>>;

/// One progress bar with an ETA per stage on a terminal; elsewhere a line when a stage begins, and more while it lasts.
pub struct Bars {
    stage: Stage,
    /// Until it is dropped the lines go on.
    _lines: Option<Sender<()>>,
}

impl Bars {
    pub fn new() -> Self {
        let stage = Stage::default();
        let hidden = ProgressDrawTarget::stderr().is_hidden();
        let lines = hidden.then(|| say_every(EVERY, stage.clone()));
        Self {
            stage,
            _lines: lines,
        }
    }

    pub fn show(&self, stage: &str, share: f64) {
        let mut current = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(name, _)| name != stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            *current = Some((stage.to_string(), begin(stage)));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_position((share * PARTS as f64) as u64);
        }
    }

    pub fn finish(&self) {
        let mut current = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bar)) = current.take() {
            bar.finish_and_clear();
        }
    }
}

fn begin(stage: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(PARTS), ProgressDrawTarget::stderr());
    if bar.is_hidden() {
        eprintln!("{stage}");
        return bar;
    }
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.pos() > 0 {
            let _ = write!(out, ", ETA {:#}", HumanDuration(state.eta()));
        }
    };
    if let Ok(style) =
        ProgressStyle::with_template("{msg:32} {bar:20} {percent:>3} %  {elapsed}{left}")
    {
        bar.set_style(style.with_key("left", left));
    }
    bar.set_message(stage.to_string());
    bar.enable_steady_tick(REDRAW);
    bar
}

/// Says from time to time how far the stage is.
fn say_every(interval: Duration, stage: Stage) -> Sender<()> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let current = stage.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((name, bar)) = current.as_ref() {
                eprintln!("{}", line(name, bar));
            }
        }
    });
    sender
}

fn line(stage: &str, bar: &ProgressBar) -> String {
    let elapsed = HumanDuration(bar.elapsed());
    match bar.position() {
        0 => format!("{stage}: {elapsed:#} so far"),
        done => format!(
            "{stage}: {} % after {elapsed:#}, ETA {:#}",
            100 * done / PARTS,
            HumanDuration(bar.eta())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_promises_nothing_before_anything_is_done() {
        let bar = ProgressBar::hidden();
        bar.set_length(PARTS);
        assert_eq!(line("features", &bar), "features: 0s so far");
        bar.set_position(250);
        let text = line("features", &bar);
        assert!(text.starts_with("features: 25 % after 0s, ETA "), "{text}");
    }

    #[test]
    fn lines_end_with_their_bars() {
        let stage = Stage::default();
        let sender = say_every(Duration::from_millis(1), stage.clone());
        drop(sender);
        for _ in 0..1000 {
            if Arc::strong_count(&stage) == 1 {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the thread goes on");
    }
}
