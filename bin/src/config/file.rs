//! The settings file. What is wrong with it is told by file, line, column and key: a value may be a key of somebody's.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::Result;
use clap::{Arg, ArgAction, Command, Id, ValueHint};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::args::expected;
use crate::exit::Usage;

/// No settings file is longer.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Flags that say where the file is, or set nothing.
pub(super) const NO_SETTINGS: [&str; 3] = ["config", "help", "version"];
/// A key that is less like a known one is no misspelling of it.
const MIN_LIKENESS: f64 = 0.8;

/// A settings file in which every key is known.
pub(super) struct File<'t> {
    path: &'t Path,
    text: &'t str,
    table: DeTable<'t>,
    /// All commands, built.
    root: &'t Command,
}

/// What the file says of one flag of a command.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The argument.
    pub(super) id: Id,
    /// Its flag, without the dashes.
    pub(super) key: String,
    /// The line of the file, from 1.
    pub(super) line: usize,
    /// How deep the table is: a deeper one counts more.
    pub(super) depth: usize,
    pub(super) given: Given,
}

/// What a key gives to its flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// The flag stands there so often; for `false` not at all.
    Times(u8),
    /// The flag stands there with each of these.
    Values(Vec<OsString>),
}

/// What is wrong, and at which byte that begins.
struct Mistake {
    at: usize,
    key: Option<String>,
    what: String,
}

/// The text of the file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Usage::new(format!("cannot read {}: {error}", path.display())).into()),
    }
    if bytes.len() > MAX_FILE_BYTES {
        return Err(refuse(path, &format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|_| refuse(path, "it is not text in UTF-8"))?))
}

fn refuse(path: &Path, why: &str) -> anyhow::Error {
    Usage::new(format!("{} is not a settings file: {why}", path.display())).into()
}

impl<'t> File<'t> {
    /// Checks that each key is a flag of a command, and says what that takes.
    pub(super) fn parse(path: &'t Path, text: &'t str, root: &'t Command) -> Result<Self> {
        let table = DeTable::parse(text).map_err(|error| {
            // The words of the parser repeat what stands there.
            let place = place(text, error.span().map_or(text.len(), |span| span.start));
            let why = "expected KEY = VALUE on each line, every key once, and texts in quotes";
            refuse(path, &format!("{place}: {why}"))
        })?;
        let file = Self { path, text, table: table.into_inner(), root };
        file.check(&file.table, root).map_err(|mistake| file.refuse(mistake))?;
        Ok(file)
    }

    /// What the file says of the flags of the command of this name, such as `cache`, `gc`; each flag once.
    pub(super) fn settings(&self, name: &[&str]) -> Result<Vec<Setting>> {
        let (mut tables, mut command) = (vec![&self.table], self.root);
        for (depth, part) in name.iter().enumerate() {
            let Some(below) = command.find_subcommand(part) else { break };
            command = below;
            let table = tables.get(depth).and_then(|table| table.get(*part)?.get_ref().as_table());
            tables.extend(table);
        }
        let mut settings: Vec<Setting> = Vec::new();
        for (depth, table) in tables.into_iter().enumerate().rev() {
            for (key, value) in in_order(table) {
                // A table is that of a command, which may have the name of a flag.
                let Some(arg) = flag(command, key.get_ref()).filter(|_| !value.get_ref().is_table()) else {
                    continue;
                };
                if settings.iter().any(|deeper| deeper.id == *arg.get_id()) {
                    continue;
                }
                let given = self.given(arg, value).map_err(|mistake| self.refuse(mistake))?;
                let line = line(self.text, key.span().start);
                let (id, key) = (arg.get_id().clone(), key.get_ref().to_string());
                settings.push(Setting { id, key, line, depth, given });
            }
        }
        Ok(settings)
    }

    /// Checks a table of what is set for a command and those below it.
    fn check(&self, table: &DeTable<'_>, command: &Command) -> Result<(), Mistake> {
        for (key, value) in in_order(table) {
            let name = &**key.get_ref();
            if let (Some(below), DeValue::Table(table)) = (command.find_subcommand(name), value.get_ref()) {
                self.check(table, below)?;
                continue;
            }
            let flags = flags(command, name);
            let mut flags = flags.into_iter().map(|arg| self.given(arg, value));
            match flags.next() {
                None => {
                    let what = self.unknown(name, command);
                    return Err(Mistake { at: key.span().start, key: None, what });
                }
                // The flags of some commands take more than those of others.
                Some(Err(mistake)) if !flags.any(|given| given.is_ok()) => return Err(mistake),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What this value gives to the flag. Relative paths are relative to the file.
    fn given(&self, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Given, Mistake> {
        let key = || arg.get_long().map(str::to_owned);
        let mistake = |at: usize, what: String| Mistake { at, key: key(), what };
        let expects = |what: &str| Err(mistake(value.span().start, format!("expected {what}")));
        let takes = arg.get_num_args().unwrap_or_default();
        match (arg.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, DeValue::Boolean(is_on)) => return Ok(Given::Times(u8::from(*is_on))),
            (ArgAction::SetTrue, _) => return expects("true or false"),
            (ArgAction::Count, DeValue::Integer(times)) => {
                let times = u8::from_str_radix(times.as_str(), times.radix()).ok();
                return times
                    .map_or_else(|| expects("a small whole number"), |times| Ok(Given::Times(times)));
            }
            (ArgAction::Count, _) => return expects("a small whole number"),
            (_, DeValue::Boolean(is_on)) if takes.min_values() == 0 => {
                return Ok(Given::Times(u8::from(*is_on)));
            }
            _ => {}
        }
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        let values: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(values) if is_list => values.iter().collect(),
            _ => vec![value],
        };
        let given = values.into_iter().map(|value| {
            let text = text_of(value.get_ref()).ok_or_else(|| {
                let one = if is_list { "" } else { "one " };
                let what = format!("expected {one}{} in quotes", value_name(arg));
                mistake(value.span().start, what)
            })?;
            let given = match arg.get_value_hint() {
                ValueHint::AnyPath => self.path.parent().unwrap_or(Path::new("")).join(text).into(),
                _ => OsString::from(text),
            };
            expected(arg, &given).map_or(Ok(given), |what| Err(mistake(value.span().start, what)))
        });
        Ok(Given::Values(given.collect::<Result<_, _>>()?))
    }

    /// What to say of a key that is no flag of the command, nor of those below it.
    fn unknown(&self, key: &str, command: &Command) -> String {
        let mut others = Vec::new();
        each_command(self.root, &mut |other| {
            if flag(other, key).is_some() {
                others.push(name_of(other));
            }
        });
        if !others.is_empty() {
            return format!("{} has no setting {key}; it is one of {}", name_of(command), others.join(", "));
        }
        let mut known: Vec<&str> = Vec::new();
        each_command(command, &mut |command| {
            known.extend(command.get_arguments().filter_map(Arg::get_long));
            known.extend(command.get_subcommands().map(Command::get_name));
        });
        known.retain(|known| !NO_SETTINGS.contains(known));
        let likeness = |known: &&str| strsim::jaro_winkler(&key.to_lowercase(), known);
        let nearest = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        match nearest.filter(|nearest| likeness(nearest) >= MIN_LIKENESS) {
            Some(nearest) => format!("there is no such setting; did you mean {nearest}?"),
            None => "there is no such setting; they are named like the flags".to_owned(),
        }
    }

    fn refuse(&self, Mistake { at, key, what }: Mistake) -> anyhow::Error {
        let key = key.map_or(String::new(), |key| format!(", {key}"));
        refuse(self.path, &format!("{}{key}: {what}", place(self.text, at)))
    }
}

/// The flag of a command that this key sets.
fn flag<'c>(command: &'c Command, key: &str) -> Option<&'c Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key) && !NO_SETTINGS.contains(&key))
}

/// Such flags of a command and of all below it.
fn flags<'c>(command: &'c Command, key: &str) -> Vec<&'c Arg> {
    let mut found = Vec::new();
    each_command(command, &mut |command| found.extend(flag(command, key)));
    found
}

/// Calls this for a command and all below it.
pub(super) fn each_command<'c>(command: &'c Command, see: &mut impl FnMut(&'c Command)) {
    see(command);
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        each_command(below, see);
    }
}

/// How a person calls it, such as `loader cache gc`.
fn name_of(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

fn value_name(arg: &Arg) -> &str {
    arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str())
}

/// The entries of a table as they stand in the file.
fn in_order<'a, 't>(table: &'a DeTable<'t>) -> Vec<(&'a Spanned<DeString<'t>>, &'a Spanned<DeValue<'t>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A text, or a number as text.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(decimal.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    format!("line {}, column {}", line(text, at), before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::CommandFactory as _;

    use super::*;
    use crate::args::CommandLine;

    /// What a file says of a command.
    fn settings(content: &[u8], name: &[&str]) -> Result<Vec<Setting>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let mut root = CommandLine::command();
        root.build();
        let text = read(file.path())?.unwrap();
        File::parse(file.path(), &text, &root)?.settings(name)
    }

    /// The same as `key=value`, in the order in which it counts.
    fn said(toml: &str, name: &[&str]) -> Vec<String> {
        let mut said = Vec::new();
        for Setting { key, given, .. } in settings(toml.as_bytes(), name).unwrap() {
            match given {
                Given::Times(times) => said.push(format!("{key}*{times}")),
                Given::Values(values) => {
                    said.extend(values.iter().map(|value| format!("{key}={}", value.to_str().unwrap())))
                }
            }
        }
        said
    }

    fn refusal(content: &[u8]) -> String {
        let error = settings(content, &["fetch"]).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("is not a settings file: "), "{error}");
        format!("{error:#} {error:?}")
    }

    #[test]
    fn every_flag_of_every_command_is_a_setting() {
        let mut root = CommandLine::command();
        root.build();
        let mut count = 0;
        each_command(&root, &mut |command| {
            let path = name_of(command);
            let name: Vec<_> = path.split(' ').skip(1).collect();
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let key = arg.get_long().unwrap();
                if NO_SETTINGS.contains(&key) {
                    continue;
                }
                let value = match arg.get_action() {
                    ArgAction::SetTrue => "true",
                    ArgAction::Count => "2",
                    _ => [
                        "7",
                        "'7s'",
                        "'7MiB'",
                        "'/ip4/192.0.2.1/tcp/1'",
                        "'0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'",
                        "'http://h'",
                        "'ws://h'",
                        "'latest'",
                        "'rs'",
                        "'auto'",
                        "'call'",
                        "'12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7'",
                        "'0000000000000000000000000000000000000000000000000000000000000000'",
                    ]
                    .into_iter()
                    .find(|value| settings(format!("{key} = {value}").as_bytes(), &name).is_ok())
                    .unwrap_or_else(|| panic!("{path} --{key} takes none of the values of this test")),
                };
                for toml in [format!("{key} = {value}"), format!("[{}]\n{key} = {value}", name.join("."))] {
                    if name.is_empty() && toml.starts_with('[') {
                        continue;
                    }
                    let found = settings(toml.as_bytes(), &name).unwrap();
                    assert_eq!(found.iter().map(|one| &one.key).collect::<Vec<_>>(), [key], "{toml}");
                    count += 1;
                }
            }
        });
        assert!(count > 300, "{count}");
    }

    #[test]
    fn a_table_counts_more_than_what_stands_above_it() {
        let toml = "wait = '1s'\nlisten = '/ip4/192.0.2.1/tcp/1'\nno-mdns = true\nkeep = 2\n\
                    [fetch]\nwait = '2s'\nno-mdns = false\n[serve]\nno-mdns = true\n[cache.gc]\ndry-run = true";
        assert_eq!(said(toml, &["fetch"]), ["wait=2s", "no-mdns*0", "listen=/ip4/192.0.2.1/tcp/1"]);
        assert_eq!(said(toml, &["serve"]), ["no-mdns*1", "listen=/ip4/192.0.2.1/tcp/1", "keep=2"]);
        assert_eq!(said(toml, &["cache", "gc"]), ["dry-run*1"]);
        assert_eq!(said(toml, &["cache", "ls"]), [""; 0]);
    }

    #[test]
    fn one_value_is_a_list_of_one_and_numbers_are_texts() {
        let toml =
            "peer = '/ip4/192.0.2.1/tcp/1'\nstring-slot = 0x1_0\nhttp = 4300\nverbose = 2\nquorum = '2'";
        assert_eq!(
            said(toml, &["watch"]),
            ["peer=/ip4/192.0.2.1/tcp/1", "string-slot=16", "http=4300", "verbose*2", "quorum=2"]
        );
        assert_eq!(said("max-fee = 1.5\ncalldata = true", &["publish"]), ["max-fee=1.5", "calldata*1"]);
        assert_eq!(said("peer = []\nexclude = ['a,b', 'c']", &["fetch"]), ["exclude=a,b", "exclude=c"]);
    }

    #[test]
    fn paths_in_the_file_are_relative_to_it() {
        let root = CommandLine::command();
        let (path, mut root) = (Path::new("/etc/loader.toml"), root);
        root.build();
        let text = "cache-dir = 'models'\nlink = '/srv/model'\nblob-dir = ['a']\nfiles = ['a']";
        let file = File::parse(path, text, &root).unwrap();
        let values = |name: &[&str]| {
            let settings = file.settings(name).unwrap().into_iter();
            settings.map(|setting| format!("{:?}", setting.given)).collect::<Vec<_>>().join(" ")
        };
        let serve = values(&["serve"]);
        assert!(
            serve.contains("/etc/models") && serve.contains("\"/srv/model\"") && serve.contains("/etc/a")
        );
        assert!(values(&["fetch"]).contains("[\"a\"]"));
        assert!(read(Path::new("/nowhere/loader.toml")).unwrap().is_none());
        assert!(read(Path::new("/")).unwrap_err().is::<Usage>());
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        for (toml, part) in [
            ("cache_dir = '/f'", "line 1, column 1: there is no such setting; did you mean cache-dir?"),
            (
                "wait = '1s'\n  rpc-urls = []",
                "line 2, column 3: there is no such setting; did you mean rpc-url?",
            ),
            ("[sevre]\nkeep = 1", "line 1, column 2: there is no such setting; did you mean serve?"),
            ("colour = 'red'", "line 1, column 1: there is no such setting; they are named like the flags"),
            ("config = 'a'", "line 1, column 1: there is no such setting"),
            (
                "[fetch]\nexec = 'a'",
                "line 2, column 1: loader fetch has no setting exec; it is one of loader watch",
            ),
            (
                "[cache.gc]\nkeep = 1",
                "loader cache gc has no setting keep; it is one of loader serve, loader watch",
            ),
            ("contract = '0x12'", "line 1, column 12, contract: expected 0x and 40 hexadecimal characters"),
            ("wait = '5'", "line 1, column 8, wait: expected a whole number and a unit"),
            ("wait = 5", "line 1, column 8, wait: expected a whole number and a unit"),
            ("wait = ['5s']", "line 1, column 8, wait: expected one DURATION in quotes"),
            ("peer = 'here'", "line 1, column 8, peer: expected MULTIADDR, as --peer takes it"),
            ("rpc-url = [\n  'http://a',\n  true,\n]", "line 3, column 3, rpc-url: expected URL in quotes"),
            (
                "rpc-url = [\n  'http://a',\n  'ws://a',\n]",
                "line 3, column 3, rpc-url: expected URL, as --rpc-url takes it: the RPC URL is a WebSocket one",
            ),
            ("layout = 'tar'", "line 1, column 10, layout: expected one of auto, files, rows"),
            ("[quorum]\nx = 1", "quorum: expected one K"),
            ("quorum = -1", "line 1, column 10, quorum: expected K, as --quorum takes it"),
            ("no-mdns = 1", "line 1, column 11, no-mdns: expected true or false"),
            ("wait = '1s'\nwait = '2s'", "line 2, column 1: expected KEY = VALUE"),
            ("é = 1 1", "line 1, column"),
        ] {
            let shown = refusal(toml.as_bytes());
            assert!(shown.contains(part), "{toml}: {shown}");
        }
    }

    #[test]
    fn no_mistake_shows_what_was_typed() {
        const KEY: &str = "https://user:Xk29fQw7@rpc.example.org/v3/Xk29fQw7";
        let mut mistakes: Vec<String> = [
            "rpc-url = \"KEY",
            "rpc-url = 'KEY\nwait = '1s'",
            "rpc-url = [\"KEY\", KEY]",
            "KEY",
            "KEY = 1",
            "\"KEY\" = 1",
            "'KEY' = 'KEY'",
            "rpc-url = ['KEY']\nrpc-url = ['KEY']",
            "[KEY]",
            "['KEY']\nx = 1",
            "rpc-url.'KEY' = 1",
            "rpc-url = {'KEY' = 1}",
            "'KEY'.x = 1",
            "rpc-header = [['KEY']]",
            "rpc-url: KEY",
            "rpc-url = ['KEY'",
            "rpc-url = ['KEY' 'KEY']",
            "\u{feff}\u{feff}KEY",
            "rpc-url = [\"\\qKEY\"]",
            "[[KEY]]",
            "rpc-url = \"\"\"KEY",
            "export LOADER_RPC_URL=KEY",
            "rpc-url = 'ftp://KEY'",
            "rpc-url = ['KEY', 'KEY:99999/']",
            "[fetch]\n'KEY' = 1",
            "[fetch.'KEY']",
        ]
        .map(|mistake| mistake.replace("KEY", KEY))
        .into();
        let mut root = CommandLine::command();
        root.build();
        let mut keys = Vec::new();
        each_command(&root, &mut |command| {
            keys.extend(command.get_arguments().filter_map(Arg::get_long).map(str::to_owned));
        });
        for key in keys {
            for value in [
                "'KEY'",
                "['KEY']",
                "[['KEY']]",
                "{a = 'KEY'}",
                "{'KEY' = 1}",
                "5",
                "KEY",
                "-1",
                "1.5",
                "1979-05-27",
            ] {
                mistakes.push(format!("{key} = {}", value.replace("KEY", &KEY.replace("http", "x"))));
            }
        }
        for mistake in mistakes {
            // Some are right: a path may be anything.
            let Err(error) = settings(mistake.as_bytes(), &["fetch"]) else { continue };
            let shown = format!("{error:#} {error:?}");
            assert!(
                !shown.contains("Xk29") && !shown.contains("user:") && shown.contains("line "),
                "{mistake}: {shown}"
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_is_told_by_its_kind() {
        assert!(refusal(b"wait = '\xff\xfe'").contains("not text in UTF-8"));
        assert!(refusal(&vec![b'#'; MAX_FILE_BYTES + 1]).contains("more than 1048576 bytes"));
        assert!(refusal(b"\x7fELF\0\0").contains("line 1"));
        assert!(refusal(&[b'['; 100_000]).contains("line 1"));
    }
}
