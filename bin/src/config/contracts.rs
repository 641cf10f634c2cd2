//! Tables of contracts in the settings file: each has an address, and its own of what a contract has.

use chain_reader::Address;
use clap::{Arg, Command};
use toml::de::{DeTable, DeValue};

use super::words::{misspelt, text_of};

/// The key of the tables: also the flag of a single one.
pub(super) const CONTRACT: &str = "contract";
/// What that flag is called in such a table.
pub(super) const ADDRESS: &str = "address";
const CHAIN_ID: &str = "chain-id";
/// A contract may have its own of the flags under this heading, and of that of its command.
const HEADING: &str = "Chain";
const EXEC: &str = "exec";
/// The command that has all of them.
const FOLLOWS: &str = "watch";

/// The tables of contracts, if there are such under this key.
pub(super) fn tables<'v, 't>(key: &str, value: &'v DeValue<'t>) -> Option<Vec<&'v DeTable<'t>>> {
    let tables = value.as_array().filter(|tables| key == CONTRACT && !tables.is_empty())?;
    tables.iter().map(|table| table.get_ref().as_table()).collect()
}

/// The flag of a key, in such a table and elsewhere.
pub(super) fn flag_of(key: &str) -> &str {
    if key == ADDRESS { CONTRACT } else { key }
}

/// What such a table may say, and the flags for that.
pub(super) fn flags(root: &Command) -> Vec<(&str, &Arg)> {
    let args = root.find_subcommand(FOLLOWS).into_iter().flat_map(Command::get_arguments);
    let flags = args.filter_map(|arg| Some((arg.get_long()?, arg)));
    flags
        .filter(|(key, arg)| arg.get_help_heading() == Some(HEADING) || *key == EXEC)
        .map(|(key, arg)| (if key == CONTRACT { ADDRESS } else { key }, arg))
        .collect()
}

/// What to say of a key that none of them is.
pub(super) fn unknown(key: &str, known: &[(&str, &Arg)]) -> String {
    let told = misspelt(key, known.iter().map(|(key, _)| *key));
    match told.contains('?') {
        true => told,
        false => {
            let known: Vec<_> = known.iter().map(|(key, _)| *key).collect();
            format!("a contract has no such setting: it has {}", known.join(", "))
        }
    }
}

/// Where a contract begins that stands there already, on the same chain as far as is said.
pub(super) fn doubled(tables: &[&DeTable<'_>]) -> Option<usize> {
    let is_same = |a: &DeTable<'_>, b: &DeTable<'_>| {
        let chains = text(a, CHAIN_ID).zip(text(b, CHAIN_ID));
        address(a) == address(b) && chains.is_none_or(|(a, b)| a == b)
    };
    let mut pairs = tables.iter().enumerate();
    let (_, second) = pairs.find(|(at, table)| tables[..*at].iter().any(|other| is_same(other, table)))?;
    second.iter().map(|(key, _)| key.span().start).min()
}

/// The address of the contract that a table is of.
pub(super) fn address(table: &DeTable<'_>) -> Option<Address> {
    text(table, ADDRESS)?.parse().ok()
}

fn text(table: &DeTable<'_>, key: &str) -> Option<String> {
    text_of(table.get(key)?.get_ref())
}
