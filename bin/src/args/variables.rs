//! Variables that are named like settings of ours, and are none.

use std::collections::BTreeSet;
use std::env;

use clap::{Command, CommandFactory as _};

use super::CommandLine;
use crate::config::secret::PASSWORD_VARIABLE;

/// What names of settings begin with.
const PREFIX: &str = "LOADER_";
/// Those that are no flags: a password, and what tests and the demo run.
const NO_FLAGS: [&str; 2] = [PASSWORD_VARIABLE, "LOADER_ANVIL"];
/// What the command of --exec is told: it may run `loader`, too.
const TOLD: [&str; 6] = [
    "LOADER_PATH",
    "LOADER_WEIGHTS",
    "LOADER_MANIFEST",
    "LOADER_MODEL_KIND",
    "LOADER_PRICE",
    "LOADER_BLOCK_NUMBER",
];
/// So similar is the name that was meant: 1 for the same, by Jaro and Winkler.
const MIN_SIMILARITY: f64 = 0.8;
/// So many are told of.
const MAX_TOLD: usize = 10;

/// Variables of the environment that are named like settings, and are none: a sentence for each, with the one that was probably
/// meant. One that a flag of the command names may have any name.
pub(crate) fn unknown_variables(command: &super::Command) -> Vec<String> {
    let named = match command {
        super::Command::Publish(flags) => flags.signing.private_key_env.as_deref(),
        _ => None,
    };
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    mistakes(names.filter(|name| Some(name.as_str()) != named).collect())
}

fn mistakes(names: BTreeSet<String>) -> Vec<String> {
    let known = known();
    let is_unknown = |name: &String| name.starts_with(PREFIX) && !known.contains(name);
    let told = |name: String| match meant(&name, &known) {
        Some(meant) => format!("the variable {name} is no setting: did you mean {meant}?"),
        None => format!("the variable {name} is no setting: docs/cli.md lists those there are"),
    };
    names.into_iter().filter(is_unknown).take(MAX_TOLD).map(told).collect()
}

/// The setting that was probably meant.
fn meant<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a String> {
    let bare = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let similarity = |other: &str| strsim::jaro_winkler(&bare(name), &bare(other));
    let ranked = known.iter().map(|other| (similarity(other), other));
    let best = ranked.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY).map(|(_, other)| other)
}

/// The variables of all flags, and the others.
fn known() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = NO_FLAGS.iter().chain(&TOLD).map(|name| (*name).to_owned()).collect();
    collect(&CommandLine::command(), &mut known);
    known
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    known.extend(names.map(str::to_owned));
    command.get_subcommands().for_each(|command| collect(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<String> {
        mistakes(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_mistyped_variable_is_told_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("LOADER_PEERS", "LOADER_PEER"),
            ("LOADER_RPC_URLS", "LOADER_RPC_URL"),
            ("LOADER_RPC", "LOADER_RPC_URL"),
            ("LOADER_CACHE", "LOADER_CACHE_DIR"),
            ("LOADER_CACHEDIR", "LOADER_CACHE_DIR"),
            ("LOADER_LOG", "LOADER_LOG_FORMAT"),
            ("LOADER_NO_MNDS", "LOADER_NO_MDNS"),
        ] {
            assert_eq!(told(&[name]), [format!("the variable {name} is no setting: did you mean {meant}?")]);
        }
        let [other] = &told(&["LOADER_SECRET_OF_MINE"])[..] else { panic!("it is none") };
        assert!(other.contains("docs/cli.md"), "{other}");
        assert_eq!(told(&["LOADER_", "LOADER_é"]).len(), 2);
    }

    #[test]
    fn what_is_known_or_of_others_is_not_told() {
        let known: Vec<String> = known().into_iter().collect();
        assert!(known.iter().any(|name| name == "LOADER_BLOB_DIR"), "those of one command, too: {known:?}");
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        assert!(told(&known).is_empty() && told(&["HOME", "UPLOADER_PEERS", "loader_peers"]).is_empty());
        let many: Vec<String> = (0..100).map(|number| format!("LOADER_X{number}")).collect();
        assert_eq!(told(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MAX_TOLD);
    }
}
