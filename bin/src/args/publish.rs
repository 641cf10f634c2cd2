//! What `publish` makes of a folder.

use clap::{Args, ValueEnum};
use loader::encode::FileLayout;

/// Which files of a folder are published, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Folders")]
pub(crate) struct FolderFlags {
    /// Publish only files that match, such as '*.json'; * matches / too. Repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Leave out files that match. Repeatable. Left out anyway, unless --include names them: .git, .gitattributes, .cache and
    /// *.lock.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// How files become shards: each one a shard, so that its SHA-256 is proven and it can be fetched alone (files), all of
    /// them cut into --data rows (rows), or files where parity can rebuild each of them and there are at most 1024 (auto).
    #[arg(long, value_name = "LAYOUT", default_value = "auto")]
    pub(crate) layout: Layout,
    /// Refuse what a runtime may execute: pickles, *.py, shared libraries, an auto_map in a configuration.
    #[arg(long)]
    pub(crate) no_code: bool,
    /// Publish a file without its name, as nodes before folders know it: it arrives as `weights`.
    #[arg(long, conflicts_with_all = ["include", "exclude", "layout"])]
    pub(crate) no_names: bool,
}

/// How files become shards.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Layout {
    Auto,
    Files,
    Rows,
}

impl From<Layout> for FileLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Auto => Self::Auto,
            Layout::Files => Self::Files,
            Layout::Rows => Self::Rows,
        }
    }
}
