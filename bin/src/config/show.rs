//! Each setting of a command: what it is, and who said so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chain_reader::{HintUrl, RpcUrl};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, ValueHint};

use super::file::{NO_SETTINGS, each_command};
use super::line::{Origins, Refused, Words, chosen, find, with_file};
use super::secret::{is_secret_flag, looks_like_a_key};
use crate::args::CommandLine;

/// In the place of what may be a key.
const HIDDEN: &str = "***";
/// Flags whose values have many digits, and are no keys.
const PUBLIC: [&str; 4] = ["base", "contract", "expect", "manifest"];

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    /// The flag, without dashes.
    pub(crate) key: String,
    /// What is set, without keys.
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// Who has said so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Flag,
    /// A variable of this name.
    Variable(String),
    /// This file, in this line.
    File(PathBuf, usize),
    Default,
}

/// The settings of the command that a command line begins or names, whose first word is the program; or those of all, each
/// with the commands for which it is so.
pub(crate) fn settings(
    program: &[OsString],
    command: &[OsString],
) -> Result<Vec<(Shown, Vec<String>)>, Refused> {
    let mut names: Vec<Vec<OsString>> = vec![command.to_vec()];
    if command.is_empty() {
        let mut root = CommandLine::command();
        root.build();
        names.clear();
        each_command(&root, &mut |command| {
            let path = command.get_bin_name().unwrap_or_default();
            if !command.has_subcommands() && !command.is_hide_set() {
                names.push(path.split(' ').skip(1).map(OsString::from).collect());
            }
        });
    }
    let mut found: BTreeMap<Shown, Vec<String>> = BTreeMap::new();
    for name in names {
        let (name, shown) = of_command([program, &name].concat())?;
        for one in shown {
            found.entry(one).or_default().push(name.clone());
        }
    }
    Ok(found.into_iter().collect())
}

/// The name of the command, and its settings.
fn of_command(words: Vec<OsString>) -> Result<(String, Vec<Shown>), Refused> {
    let (name, mut shown, contracts) = of_words(words.clone(), None)?;
    for contract in 0..contracts {
        let (_, own, _) = of_words(words.clone(), Some(contract))?;
        let own: Vec<_> = own.into_iter().filter(|one| !shown.contains(one)).collect();
        let key = |one: &Shown| format!("contract.{}.{}", contract + 1, one.key);
        shown.extend(own.into_iter().map(|one| Shown { key: key(&one), ..one }));
    }
    Ok((name, shown))
}

/// The same of the command as it is for one contract of the file, or for none; and how many of those there are.
fn of_words(words: Vec<OsString>, contract: Option<usize>) -> Result<(String, Vec<Shown>, usize), Refused> {
    let Words { words, command, origins, contracts } = with_file(words, contract)?;
    let mut root = CommandLine::command();
    root.build();
    let matches = match command.clone().try_get_matches_from(&words) {
        // Nothing is done: what would be needed for that may be missing.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            command.ignore_errors(true).try_get_matches_from(&words)?
        }
        matches => matches?,
    };
    let (name, matches) = chosen(&matches);
    let command = find(&root, &name);
    let args =
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long)));
    Ok((name.join(" "), args.map(|arg| shown(arg, matches, &origins)).collect(), contracts))
}

fn shown(arg: &Arg, matches: &ArgMatches, origins: &Origins) -> Shown {
    let (key, id) = (arg.get_long().unwrap_or_default(), arg.get_id().as_str());
    let origin = match (origins.line_of(id), matches.value_source(id)) {
        (Some(line), _) => Origin::File(origins.file().to_owned(), line),
        (None, Some(ValueSource::CommandLine)) => Origin::Flag,
        (None, Some(ValueSource::EnvVariable)) => {
            Origin::Variable(arg.get_env().unwrap_or_default().to_string_lossy().into_owned())
        }
        _ => Origin::Default,
    };
    let values = match arg.get_action() {
        ArgAction::SetTrue => vec![matches.get_flag(id).to_string()],
        ArgAction::Count => vec![matches.get_count(id).to_string()],
        _ => {
            let values = matches.get_raw(id).into_iter().flatten();
            values.map(|value| without_key(arg, key, &value.to_string_lossy())).collect()
        }
    };
    let values = match (values.is_empty(), &origin) {
        (true, Origin::Default) => explained_default(arg).into_iter().collect(),
        _ => values,
    };
    Shown { key: key.to_owned(), values, origin }
}

/// What the help says that happens without the flag.
fn explained_default(arg: &Arg) -> Option<String> {
    let help = arg.get_long_help().or(arg.get_help())?.to_string();
    let (_, default) = help.rsplit_once("[default: ")?;
    Some(default.split_once(']')?.0.to_owned())
}

fn without_key(arg: &Arg, key: &str, value: &str) -> String {
    let hidden = || HIDDEN.to_owned();
    if is_secret_flag(&format!("--{key}")) {
        let http = value.parse::<RpcUrl>().ok().map(|url| url.to_string());
        let socket = value.parse::<HintUrl>().ok().map(|url| url.to_string());
        return http.or(socket).unwrap_or_else(hidden);
    }
    let is_path = arg.get_value_hint() == ValueHint::AnyPath && Path::new(value).exists();
    if looks_like_a_key(value) && !is_path && !PUBLIC.contains(&key) { hidden() } else { value.to_owned() }
}

/// The words of a command line without its command: the program, and what all commands take.
pub(crate) fn program(words: &[OsString]) -> Result<Vec<OsString>, Refused> {
    let root = CommandLine::command();
    let matches = root.clone().try_get_matches_from(words)?;
    let (_, matches) = chosen(&matches);
    let mut program: Vec<OsString> = words.first().cloned().into_iter().collect();
    for arg in root.get_arguments() {
        let (id, flag) = (arg.get_id().as_str(), format!("--{}", arg.get_long().unwrap_or_default()));
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        match arg.get_action() {
            ArgAction::SetTrue => program.push(flag.into()),
            ArgAction::Count => program.extend(vec![flag.into(); usize::from(matches.get_count(id))]),
            _ => {
                for value in matches.get_raw(id).into_iter().flatten() {
                    program
                        .push([OsString::from(&flag).as_os_str(), "=".as_ref(), value].into_iter().collect());
                }
            }
        }
    }
    Ok(program)
}
