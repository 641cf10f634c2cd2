//! From the command line, the variables and the settings file to the arguments of a command. What the file says is put among
//! the words of the command line: so the rules of the flags hold for it, and their parsers read it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Result;
use chain_reader::Address;
use clap::builder::Resettable;
use clap::error::{ContextValue, Error, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Id};

use super::base_dir::base_dir;
use super::file::{self, File, Given, Setting};
use super::secret;
use crate::args::CommandLine;
use crate::exit::Usage;

/// Commands that take all contracts of the settings file.
const FOLLOWING: [&str; 3] = ["serve", "watch", "doctor"];

/// Why there are no arguments.
pub(crate) enum Refused {
    /// The command line is wrong, or asks for help.
    Line(Error),
    /// The settings file is wrong; whether that is to be told in JSON.
    File { error: anyhow::Error, json: bool },
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Line(error)
    }
}

/// Who has given the arguments of a command.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    /// Those of the command line and of variables.
    given: HashSet<Id>,
    /// The settings file.
    file: PathBuf,
    /// What was taken from it.
    settings: Vec<Setting>,
}

impl Origins {
    /// Whether an argument stands on the command line or in a variable.
    pub(crate) fn is_given(&self, id: &str) -> bool {
        self.given.iter().any(|given| given == id)
    }

    /// Whether it was taken from the settings file.
    pub(crate) fn is_in_file(&self, id: &str) -> bool {
        self.line_of(id).is_some()
    }

    /// The line of the settings file that it was taken from, from 1.
    pub(super) fn line_of(&self, id: &str) -> Option<usize> {
        self.settings.iter().find(|setting| setting.id == id).map(|setting| setting.line)
    }

    /// The settings file, if it holds what may be keys.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        let is_secret = |setting: &Setting| secret::is_secret_flag(&format!("--{}", setting.key));
        self.settings.iter().any(is_secret).then_some(&*self.file)
    }

    /// The settings file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) line: CommandLine,
    pub(crate) origins: Origins,
    /// The same line for each contract of the settings file, if the command follows them.
    pub(crate) contracts: Vec<Self>,
}

/// The words of a command line, with those of the settings file among them.
pub(super) struct Words {
    /// How many contracts of the file the command follows.
    pub(super) contracts: usize,
    pub(super) words: Vec<OsString>,
    pub(super) command: Command,
    pub(super) origins: Origins,
}

/// Reads a command line, its first word being the program, and the settings file.
pub(crate) fn read(words: Vec<OsString>) -> Result<Line, Refused> {
    let read = |contract| {
        let Words { words, command, origins, contracts } = with_file(words.clone(), contract)?;
        let matches = command.try_get_matches_from(words).map_err(|error| told(error, &origins))?;
        let line = CommandLine::from_arg_matches(&matches)?;
        Ok::<_, Refused>((Line { line, origins, contracts: Vec::new() }, contracts))
    };
    let (line, contracts) = read(None)?;
    let contracts = (0..contracts).map(|contract| Ok(read(Some(contract))?.0));
    Ok(Line { contracts: contracts.collect::<Result<_, Refused>>()?, ..line })
}

/// For one of the contracts that the file has tables of, or for none.
pub(super) fn with_file(words: Vec<OsString>, contract: Option<usize>) -> Result<Words, Refused> {
    let command = CommandLine::command();
    // What is missing may stand in the file.
    let found = command.clone().ignore_errors(true).try_get_matches_from(&words)?;
    let (name, found) = chosen(&found);
    if find(&command, &name).has_subcommands() {
        return Ok(Words { words, command, origins: Origins::default(), contracts: 0 });
    }
    let given = found.ids().filter(|id| {
        let source = found.value_source(id.as_str());
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    });
    let given: HashSet<Id> = given.cloned().collect();
    let json = found.try_get_one("json").ok().flatten().is_some_and(|json| *json);
    let in_file = || {
        let Some((path, text)) = text(found.get_one("config"))? else { return Ok((Origins::default(), 0)) };
        let mut root = command.clone();
        root.build();
        let file = File::parse(&path, &text, &root)?;
        let is_named = given.iter().any(|id| id == "contract");
        let contracts =
            if is_named || !FOLLOWING.contains(&name[0]) { 0 } else { file.contracts(&name).len() };
        // One that is named by its address has its table all the same.
        let address = found.try_get_one::<Address>("contract").ok().flatten();
        let named = address.and_then(|address| file.contract_at(&name, *address));
        let settings = file.settings(&name, contract.or(named))?;
        let settings = fitting(settings, &given, find(&root, &name));
        Ok((Origins { given: HashSet::new(), file: path, settings }, contracts))
    };
    let (origins, contracts) = in_file().map_err(|error| Refused::File { error, json })?;
    let origins = Origins { given, ..origins };
    Ok(Words {
        words: joined(words, &origins.settings, &command),
        command: relaxed(command, &name, &origins.settings),
        origins,
        contracts,
    })
}

/// The command that was chosen, and its arguments.
pub(super) fn chosen(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut name, mut matches) = (Vec::new(), matches);
    while let Some((part, below)) = matches.subcommand() {
        name.push(part);
        matches = below;
    }
    (name, matches)
}

pub(super) fn find<'c>(root: &'c Command, name: &[&str]) -> &'c Command {
    name.iter().fold(root, |command, part| command.find_subcommand(part).unwrap_or(command))
}

/// The text of the settings file, if one is named or stands at its usual place.
fn text(named: Option<&PathBuf>) -> Result<Option<(PathBuf, String)>> {
    let path = match named {
        Some(path) => {
            secret::is_path("--config", path)?;
            path.clone()
        }
        None => match base_dir("XDG_CONFIG_HOME", ".config") {
            Some(dir) => dir.join("loader/loader.toml"),
            None => return Ok(None),
        },
    };
    match (file::read(&path)?, named) {
        (Some(text), _) => Ok(Some((path, text))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Usage::new(format!("there is no file {}", path.display())).into()),
    }
}

/// The settings that nothing is in the way of which counts more: the same argument, or one that it cannot be used with.
fn fitting(settings: Vec<Setting>, given: &HashSet<Id>, command: &Command) -> Vec<Setting> {
    let (mut taken, mut fitting) = (given.clone(), Vec::new());
    for equal in settings.chunk_by(|a, b| a.depth == b.depth) {
        let fits = |setting: &&Setting| {
            !taken.contains(&setting.id)
                && !taken.iter().any(|id| exclude_each_other(command, &setting.id, id))
        };
        let equal: Vec<_> = equal.iter().filter(fits).cloned().collect();
        taken.extend(equal.iter().filter(|one| one.given != Given::Times(0)).map(|one| one.id.clone()));
        fitting.extend(equal);
    }
    fitting
}

/// Whether a command takes one of two arguments only.
fn exclude_each_other(command: &Command, a: &Id, b: &Id) -> bool {
    let arg = |id: &Id| command.get_arguments().find(|arg| arg.get_id() == id);
    let (Some(arg_a), Some(arg_b)) = (arg(a), arg(b)) else { return false };
    let excludes =
        |arg: &Arg, id: &Id| command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id() == id);
    let mut groups = command.get_groups().cloned();
    excludes(arg_a, b)
        || excludes(arg_b, a)
        || groups.any(|mut group| {
            let members: Vec<&Id> = group.get_args().collect();
            members.contains(&a) && members.contains(&b) && !group.is_multiple()
        })
}

/// The words, with flags for these settings among them.
fn joined(mut words: Vec<OsString>, settings: &[Setting], root: &Command) -> Vec<OsString> {
    let is_global = |setting: &&Setting| root.get_arguments().any(|arg| *arg.get_id() == setting.id);
    let (global, own): (Vec<_>, Vec<_>) = settings.iter().partition(is_global);
    let flags = |settings: Vec<&Setting>| settings.into_iter().flat_map(flags_of).collect::<Vec<_>>();
    // What comes after `--` are no flags.
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, flags(own));
    words.splice(1..1, flags(global));
    words
}

fn flags_of(Setting { key, given, .. }: &Setting) -> Vec<OsString> {
    let flag = OsString::from(format!("--{key}"));
    match given {
        Given::Times(times) => vec![flag; usize::from(*times)],
        Given::Values(values) => {
            let with = |value: &OsString| [&*flag, OsStr::new("="), value].into_iter().collect();
            values.iter().map(with).collect()
        }
    }
}

/// The command, for which these settings are no lists of one word, and need no other flag.
fn relaxed(command: Command, name: &[&str], settings: &[Setting]) -> Command {
    let [part, rest @ ..] = name else {
        return settings.iter().fold(command, |command, setting| {
            let is_own = command.get_arguments().any(|arg| *arg.get_id() == setting.id);
            match is_own {
                true => command.mut_arg(&setting.id, |arg| {
                    arg.value_delimiter(Resettable::Reset).requires(Resettable::<Id>::Reset)
                }),
                // It is one of every command.
                false => command,
            }
        });
    };
    command.mut_subcommand(part, |below| relaxed(below, rest, settings))
}

/// The error, with what the file has to do with it.
fn told(error: Error, origins: &Origins) -> Error {
    if error.kind() != ErrorKind::ArgumentConflict {
        return error;
    }
    let mut named = Vec::new();
    for (_, value) in error.context() {
        match value {
            ContextValue::String(text) => named.push(text.as_str()),
            ContextValue::Strings(texts) => named.extend(texts.iter().map(String::as_str)),
            _ => {}
        }
    }
    let is_named = |setting: &&Setting| {
        let flag = format!("--{}", setting.key);
        named.iter().any(|named| named.split([' ', '=', '[']).next() == Some(&flag))
    };
    let of_file: Vec<_> = origins.settings.iter().filter(is_named).collect();
    if of_file.is_empty() {
        return error;
    }
    let of_file = of_file.iter().map(|setting| format!("{} in line {}", setting.key, setting.line));
    let what = format!(
        "{} says what cannot be said at once: {}",
        origins.file.display(),
        of_file.collect::<Vec<_>>().join(", ")
    );
    CommandLine::command().error(ErrorKind::ArgumentConflict, what)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;
    use crate::args::{Cache, Command as Chosen, Fetch, Publish, Serve};

    fn chosen_with(toml: &str, line: &str) -> Chosen {
        match parsed(toml, line) {
            Ok((_, chosen)) => chosen,
            Err(Refused::Line(error)) => panic!("{error}"),
            Err(Refused::File { error, .. }) => panic!("{error:#}"),
        }
    }

    fn fetch(toml: &str, args: &str) -> Fetch {
        let Chosen::Fetch(fetch) = chosen_with(toml, &format!("fetch {args}")) else {
            panic!("another command")
        };
        fetch
    }

    fn publish(toml: &str, args: &str) -> Publish {
        let chosen = chosen_with(toml, &format!("publish {args}"));
        let Chosen::Publish(publish) = chosen else { panic!("another command") };
        publish
    }

    #[test]
    fn the_line_wins_over_what_excludes_it_in_the_file() {
        let listening = fetch("no-listen = true", "--listen /ip4/127.0.0.1/tcp/0");
        assert!(!listening.no_listen && listening.network.listen.len() == 1);
        let stale = fetch("offline = true", "--allow-stale 1h").named.reading;
        assert!(!stale.offline && stale.allow_stale.is_some());
        let manifest = format!("manifest = '{}'", "0".repeat(64));
        assert!(fetch(&manifest, "").manifest.is_some());
        let named = fetch(&manifest, "abcd");
        assert!(named.manifest.is_none() && named.digest.is_some());
        let layers = publish("layers = ['a', 'b']\nmodel-kind = 'simplenet'", "model");
        assert!(layers.layers.is_empty() && layers.path.is_some());
        // So does a table over what stands above it.
        let quiet = fetch("listen = '/ip4/127.0.0.1/tcp/0'\n[fetch]\nno-listen = true", "");
        assert!(quiet.no_listen && quiet.network.listen.is_empty());
    }

    #[test]
    fn what_is_needed_may_stand_in_the_file_and_what_stands_there_needs_nothing() {
        assert_eq!(publish("[publish]\nmodel-kind = 'simplenet'", "model").model_kind, "simplenet");
        let toml = "model-kind = 'simplenet'\nkeystore = 'key.json'";
        assert!(publish(toml, "model --password-file p --price 0").signing.keystore.is_some());
        let toml = "model-kind = 'simplenet'\npassword-file = 'p'\nwait = '1s'";
        assert!(publish(toml, "model").signing.password_file.is_some());
        chosen_with(toml, "verify");
        let Chosen::Cache(Cache::Gc { max_bytes, .. }) = chosen_with("max-bytes = '1KiB'", "cache gc") else {
            panic!("another command")
        };
        assert_eq!(max_bytes, Some(1024));
        let line = "publish model --model-kind simplenet --dry-run";
        assert!(matches!(parsed("", line), Err(Refused::Line(_))), "on the line it needs a price");
    }

    #[test]
    fn what_cannot_be_said_at_once_is_told_by_its_lines() {
        let Err(Refused::Line(error)) = parsed("offline = true\nallow-stale = '1h'", "fetch") else {
            panic!("it was taken")
        };
        let told = error.to_string();
        assert!(told.contains("offline in line 1") && told.contains("allow-stale in line 2"), "{told}");
    }

    #[test]
    fn words_are_where_they_belong_and_values_whole() {
        let Chosen::Serve(Serve { blob_dir, .. }) = chosen_with("blob-dir = ['/a,b', '/-c']", "serve") else {
            panic!("another command")
        };
        assert_eq!(blob_dir, [PathBuf::from("/a,b"), PathBuf::from("/-c")]);
        let files = publish("model-kind = 'simplenet'\ninclude = '-x'", "--no-code -- --model");
        assert_eq!((files.folder.include, files.path), (vec!["-x".to_owned()], Some("--model".into())));
        assert_eq!(
            fetch("files = ['a', 'b']", "--files c").files,
            ["c"],
            "a list takes the place of the file's"
        );
        let (settings, _) = parsed("json = true\nverbose = 2", "id").ok().unwrap();
        assert!(settings.is_in_file("json") && settings.is_in_file("verbose") && !settings.is_given("json"));
    }

    #[test]
    fn help_and_a_wrong_line_are_told_without_the_file() {
        for line in ["fetch --help", "", "--version", "cache", "steal"] {
            assert!(matches!(parsed("what = 'ever'", line), Err(Refused::Line(_))), "{line}");
        }
        assert!(matches!(parsed("what = 'ever'", "id --json"), Err(Refused::File { json: true, .. })));
    }
}
