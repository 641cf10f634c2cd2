//! The `loader` command: arguments, settings, output and exit status around the crate `node`.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod cmd;
mod config;
mod exit;
mod interrupt;
mod output;
mod progress;
mod tally;
mod telemetry;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::CommandLine;
use crate::exit::Status;
use crate::output::Output;

fn main() -> ExitCode {
    let line = CommandLine::try_parse().unwrap_or_else(|error| args::without_keys(error).exit());
    let output = Output::new(line.common.json);
    let done = telemetry::start(line.common.verbose, output.bars()).and_then(|()| cmd::run(line, &output));
    match done {
        Ok(()) => Status::Done.into(),
        Err(error) => output.fail(&error).into(),
    }
}
