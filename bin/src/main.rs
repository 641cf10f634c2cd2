//! The `loader` command: arguments, settings, output and exit status around the crate `node`.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod bars;
mod cmd;
mod config;
mod event;
mod exit;
mod interrupt;
mod output;
mod progress;
mod supervisor;
mod system;
mod tally;
mod telemetry;
mod units;
mod visible;

use std::process::ExitCode;

use crate::config::Refused;
use crate::exit::Status;
use crate::output::Output;

fn main() -> ExitCode {
    let line = match config::read(std::env::args_os().collect()) {
        Ok(read) => read,
        Err(Refused::Line(error)) => {
            return output::refuse(&args::without_keys(error), args::log_format()).into();
        }
        Err(Refused::File { error, json }) => {
            return Output::of_failure(json, args::log_format()).fail(&error).into();
        }
    };
    let output = Output::new(&line.line.common);
    let done = system::guarded(&output, || {
        system::prepare()?;
        telemetry::start(&line.line.common, output.bars())?;
        args::unknown_variables(&line.line.command).iter().for_each(|mistake| output.warn(mistake));
        cmd::run(line, &output)
    });
    match done {
        Ok(()) => Status::Done.into(),
        Err(error) => output.fail(&error).into(),
    }
}
