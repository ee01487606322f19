//! How a run goes, on standard error: a bar where somebody looks, else a line now and then.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// The bar, or the lines in its place.
pub(super) struct Progress {
    /// `None` where nobody looks.
    bar: Option<ProgressBar>,
    what: &'static str,
    last: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("  {prefix:<11} {bar:28.green} {msg}").expect("a template");
            ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr())
                .with_style(style.progress_chars("━╸─"))
        });
        Self {
            bar,
            what: "",
            last: Instant::now(),
        }
    }

    /// Tells how far it is, from 0 to 1, and what there is to say.
    pub(super) fn tell(&mut self, what: &'static str, part: f64, say: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(what);
            bar.set_position((part.clamp(0.0, 1.0) * 1000.0) as u64);
            bar.set_message(say());
            return;
        }
        let is_new = self.what != what;
        self.what = what;
        if is_new || self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            eprintln!("· {what}: {}", say());
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
