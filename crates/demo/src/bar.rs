//! What is shown in a terminal while something takes long.

use indicatif::{ProgressBar, ProgressStyle};
use loader::{Event, Observer};

/// On stderr, if that is a terminal. Gone when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_prefix(what);
        let template = "{prefix:<9}{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}";
        // The template is good: else there is the default one.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn update(&self, done_bytes: u64, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0.set_position(done_bytes);
    }
}

impl Observer for Bar {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Manifest { manifest, .. } => self.0.set_length(manifest.total_size_bytes()),
            Event::PieceFetched { bytes, .. } | Event::PieceRebuilt { bytes, .. } => self.0.inc(*bytes),
            _ => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
