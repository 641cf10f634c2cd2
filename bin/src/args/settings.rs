//! Looking at settings.

use std::ffi::OsString;

use clap::Subcommand;

/// Commands about the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print each setting of a command, what it is, and where that comes from.
    ///
    /// That is a flag, a variable, a line of the settings file, or the default. Without COMMAND, those of all commands, and
    /// after each that is not the same for all of them for which. Of URLs the host is shown only, and of headers and
    /// whatever else may be a key, nothing. Nothing is done, asked or created.
    Show {
        /// The command, and flags that it is given: serve, or fetch --peer /ip4/192.0.2.7/tcp/4201.
        #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}
