//! Progress on stderr.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One progress bar with an ETA per stage on a terminal; a line per finished stage elsewhere.
pub struct Bars(Mutex<Option<(String, ProgressBar)>>);

impl Bars {
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub fn show(&self, stage: &str, share: f64) {
        let Ok(mut current) = self.0.lock() else {
            return;
        };
        if current.as_ref().is_none_or(|(name, _)| name != stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(
                "{msg:32} {bar:30} {percent:>3} %  {elapsed} (ETA {eta})",
            ) {
                bar.set_style(style);
            }
            bar.set_message(stage.to_string());
            if bar.is_hidden() {
                eprintln!("{stage}");
            }
            *current = Some((stage.to_string(), bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_position((share * 1000.0) as u64);
        }
    }

    pub fn finish(&self) {
        if let Ok(mut current) = self.0.lock()
            && let Some((_, bar)) = current.take()
        {
            bar.finish_and_clear();
        }
    }
}
