//! Runs scenarios and writes what came of each as a line of JSON: `cargo xtask sim` makes tables and plots of it.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::process::ExitCode;

use sim::{CHUNK_BYTES, Scenario};

fn main() -> ExitCode {
    for argument in std::env::args().skip(1) {
        match parse(&argument) {
            Ok(scenario) => println!("{}", sim::run(scenario).to_json()),
            Err(error) => {
                eprintln!("sim: {argument}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

/// `name=value,name=value`: what differs from the defaults.
fn parse(text: &str) -> Result<Scenario, String> {
    let mut scenario = Scenario::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is no name=value"))?;
        let number: u64 = value.parse().map_err(|_| format!("`{value}` is no number"))?;
        let small = || u32::try_from(number).map_err(|_| format!("`{value}` is too much"));
        match name {
            "nodes" => scenario.nodes = small()?.max(1),
            "seed" => scenario.seed = number,
            "pieces" => scenario.pieces = number.clamp(1, 1 << 20),
            "seeder" => scenario.seeder_bytes_per_s = number.max(1),
            "up" => scenario.upload_bytes_per_s = number.max(1),
            "down" => scenario.download_bytes_per_s = number.max(1),
            "latency_ms" => scenario.latency_ms = (number.min(60_000), number.min(60_000)),
            "window" => scenario.window_bytes = (number.max(CHUNK_BYTES), number.max(CHUNK_BYTES)),
            "start_ms" => scenario.start_ms = number.min(60_000),
            "neighbours" => scenario.neighbours = small()?.max(1),
            "places" => scenario.places = small()?.max(1) as usize,
            "have_ms" => scenario.have_interval_ms = number.max(1),
            "leaving" => scenario.leaving_percent = small()?,
            "lying" => scenario.lying_percent = small()?,
            "stalled" => scenario.stalled_percent = small()?,
            "read_ahead" => scenario.read_ahead = small()?,
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    Ok(scenario)
}
