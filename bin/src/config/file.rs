//! The settings file. What is wrong with it is told by file, line, column and key: a value may be a key of somebody's.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::Result;
use chain_reader::Address;
use clap::{Arg, ArgAction, Command, Id, ValueHint};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::contracts;
use super::words::{misspelt, text_of};
use crate::args::expected;
use crate::exit::Usage;

/// No settings file is longer.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Flags that say where the file is, or set nothing.
pub(super) const NO_SETTINGS: [&str; 3] = ["config", "help", "version"];

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

    /// What the file says of the flags of the command of this name, such as `cache`, `gc`; each flag once. With a contract,
    /// what the table of that one says counts most.
    pub(super) fn settings(&self, name: &[&str], contract: Option<usize>) -> Result<Vec<Setting>> {
        let (command, mut tables) = self.tables(name);
        tables.extend(contract.and_then(|at| self.contracts(name).get(at).copied()));
        let mut settings: Vec<Setting> = Vec::new();
        for (depth, table) in tables.into_iter().enumerate().rev() {
            for (key, value) in in_order(table) {
                // A table is that of a command, which may have the name of a flag; several are those of contracts.
                if value.get_ref().is_table() || contracts::tables(key.get_ref(), value.get_ref()).is_some() {
                    continue;
                }
                let name = contracts::flag_of(key.get_ref());
                let Some(arg) = flag(command, name) else { continue };
                if settings.iter().any(|deeper| deeper.id == *arg.get_id()) {
                    continue;
                }
                let given = self.given(arg, value).map_err(|mistake| self.refuse(mistake))?;
                let line = line(self.text, key.span().start);
                let (id, key) = (arg.get_id().clone(), name.to_owned());
                settings.push(Setting { id, key, line, depth, given });
            }
        }
        Ok(settings)
    }

    /// The tables of contracts that count for a command: none where a contract is named otherwise.
    pub(super) fn contracts(&self, name: &[&str]) -> Vec<&DeTable<'t>> {
        let (_, tables) = self.tables(name);
        let named = tables.iter().rev().find_map(|table| table.get(contracts::CONTRACT));
        named.and_then(|value| contracts::tables(contracts::CONTRACT, value.get_ref())).unwrap_or_default()
    }

    /// Which of them has this address.
    pub(super) fn contract_at(&self, name: &[&str], address: Address) -> Option<usize> {
        self.contracts(name).iter().position(|table| contracts::address(table) == Some(address))
    }

    /// The command of this name, and the tables that say something of it, the deepest last.
    fn tables(&self, name: &[&str]) -> (&Command, Vec<&DeTable<'t>>) {
        let (mut tables, mut command) = (vec![&self.table], self.root);
        for (depth, part) in name.iter().enumerate() {
            let Some(below) = command.find_subcommand(part) else { break };
            command = below;
            let table = tables.get(depth).and_then(|table| table.get(*part)?.get_ref().as_table());
            tables.extend(table);
        }
        (command, tables)
    }

    /// Checks a table of what is set for a command and those below it.
    fn check(&self, table: &DeTable<'_>, command: &Command) -> Result<(), Mistake> {
        for (key, value) in in_order(table) {
            let name = &**key.get_ref();
            if let (Some(below), DeValue::Table(table)) = (command.find_subcommand(name), value.get_ref()) {
                self.check(table, below)?;
                continue;
            }
            if let Some(tables) = contracts::tables(name, value.get_ref()) {
                self.check_contracts(&tables, key.span().start)?;
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

    /// Checks the tables of contracts.
    fn check_contracts(&self, tables: &[&DeTable<'_>], at: usize) -> Result<(), Mistake> {
        let known = contracts::flags(self.root);
        for table in tables {
            let mut at = at;
            for (key, value) in in_order(table) {
                at = at.max(key.span().start);
                let arg = known.iter().find(|(known, _)| **key.get_ref() == **known);
                let Some((_, arg)) = arg else {
                    let what = contracts::unknown(key.get_ref(), &known);
                    return Err(Mistake { at: key.span().start, key: None, what });
                };
                self.given(arg, value)?;
            }
            if !table.contains_key(contracts::ADDRESS) {
                let what = format!("a contract needs its {}", contracts::ADDRESS);
                return Err(Mistake { at, key: None, what });
            }
        }
        match contracts::doubled(tables) {
            Some(at) => {
                let what = "this contract stands here already: leave one away, or give each its own chain-id";
                Err(Mistake { at, key: None, what: what.to_owned() })
            }
            None => Ok(()),
        }
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
        misspelt(key, known)
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

fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    format!("line {}, column {}", line(text, at), before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
