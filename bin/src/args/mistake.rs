//! What is wrong with a command line, said without the keys that may stand in it.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, Error};
use clap::{Arg, ArgMatches, Command, CommandFactory as _};

use super::{CommandLine, LogFormat};
use crate::config::secret::{is_secret_flag, looks_like_a_key};

/// As long as a part of a key, of letters and digits.
const MIN_KEY_CHARS: usize = 20;

/// The same error, in words of ours when clap's would repeat what may be a key.
pub(crate) fn without_keys(error: Error) -> Error {
    let texts = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, text.as_str())),
        _ => None,
    });
    let texts: Vec<_> = texts.collect();
    let argument =
        texts.iter().find(|(kind, text)| *kind == ContextKind::InvalidArg && !may_hold_a_key(text));
    let is_secret = argument.is_some_and(|(_, argument)| is_secret_flag(argument));
    let may_be_one = |kind: ContextKind, text: &str| {
        is_secret && kind == ContextKind::InvalidValue || may_hold_a_key(text)
    };
    let Some((_, given)) = texts.iter().find(|(kind, text)| may_be_one(*kind, text)) else { return error };
    let reason = error.source().map(ToString::to_string);
    let reason = reason.filter(|reason| !repeats(reason, given)).map(|reason| format!(": {reason}"));
    let what = match argument {
        Some((_, argument)) => {
            format!("what '{argument}' was given is not valid{}", reason.unwrap_or_default())
        }
        None => "an argument is not known".to_owned(),
    };
    CommandLine::command().error(error.kind(), format!("{what} (it is not shown, as it may be a key)"))
}

/// Whether a text may be a key, or a URL or header with one: addresses of peers and contracts are none.
fn may_hold_a_key(text: &str) -> bool {
    let is_address = text.starts_with('/') || text.starts_with("0x") && text.len() <= 44;
    let is_peer = ["12D3KooW", "16Uiu2", "Qm"].iter().any(|start| text.starts_with(start));
    let is_mixed = |run: &str| {
        run.len() >= MIN_KEY_CHARS
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let mut runs = text.split(|char: char| !(char.is_ascii_alphanumeric() || "-_+=".contains(char)));
    text.contains("://")
        || !(is_address || is_peer)
            && (looks_like_a_key(text) || !is_socket(text) && text.contains(['@', ':']) || runs.any(is_mixed))
}

/// Whether a text is a host and a port.
fn is_socket(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = |char: char| char.is_ascii_alphanumeric() || ".-:[]".contains(char);
    port.parse::<u16>().is_ok() && host.chars().all(is_host)
}

/// What an argument takes, if a text is something else. The text is not repeated.
pub(crate) fn expected(arg: &Arg, text: &OsStr) -> Option<String> {
    let probe = Arg::new("value").long("value").value_parser(arg.get_value_parser().clone());
    let probe = Command::new("probe").no_binary_name(true).arg(probe);
    let word: OsString = [OsStr::new("--value="), text].into_iter().collect();
    let error = probe.try_get_matches_from([word]).err()?;
    let named = arg.get_possible_values();
    if !named.is_empty() {
        let named: Vec<_> = named.iter().map(|value| value.get_name()).collect();
        return Some(format!("expected one of {}", named.join(", ")));
    }
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    let text = text.to_string_lossy();
    if let Some(told) = reason.find("expected ").map(|at| &reason[at..])
        && !repeats(told, &text)
    {
        return Some(told.to_owned());
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("a value", |name| name);
    let flag = arg.get_long().unwrap_or_default();
    let is_shown = !reason.is_empty() && !repeats(&reason, &text) && !reason.contains(&*text);
    let reason = if is_shown { format!(": {reason}") } else { String::new() };
    Some(format!("expected {name}, as --{flag} takes it{reason}"))
}

/// Whether a message repeats a part of what was given.
fn repeats(message: &str, given: &str) -> bool {
    let given: Vec<char> = given.chars().collect();
    given.windows(6).any(|part| message.contains(&part.iter().collect::<String>()))
}

/// The form that a command line wants that is not valid otherwise.
pub(crate) fn log_format() -> LogFormat {
    let matches = CommandLine::command().ignore_errors(true).try_get_matches();
    matches.map_or(LogFormat::Text, |matches| wanted(&matches))
}

fn wanted(matches: &ArgMatches) -> LogFormat {
    matches.get_one("log_format").copied().unwrap_or(LogFormat::Text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn shown(line: &[&str]) -> String {
        without_keys(CommandLine::try_parse_from(line).unwrap_err()).to_string()
    }

    #[test]
    fn a_key_in_any_place_is_not_repeated() {
        let hex = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        for key in [
            hex,
            &format!("0x{hex}"),
            "https://h/v3/Xk29fQw7",
            "h X-Key: Xk29fQw7",
            "Xk29fQw7Xk29fQw7Xk29fQw7",
            "u@Xk29fQw7",
        ] {
            for flag in [
                "--contract",
                "--manifest=",
                "--quorum",
                "--chain-id",
                "--wait",
                "--peer",
                "--allow-peer",
                "--string-slot",
                "--allow-stale",
                "--block-tag",
                "--upload-limit",
                "--listen",
                "--max-size",
                "--rpc-ulr=",
                "--no-mdns=",
                "",
                "--",
            ] {
                let joined = format!("{flag}{key}");
                let args: &[&str] =
                    if flag.is_empty() || flag.ends_with('=') { &[&joined] } else { &[flag, key] };
                let line = [&["loader", "fetch"], args].concat();
                // A digest is what --manifest wants.
                let Err(error) = CommandLine::try_parse_from(&line) else { continue };
                let shown = without_keys(error).to_string();
                assert!(!shown.contains(&hex[..12]) && !shown.contains("Xk29"), "{line:?}: {shown}");
            }
            let shown = shown(&["loader", key]);
            assert!(!shown.contains(&hex[..12]) && !shown.contains("Xk29"), "{shown}");
        }
    }

    #[test]
    fn the_form_is_known_of_command_lines_that_are_wrong() {
        for (line, form) in [
            ("loader fetch --log-format json --peer here", LogFormat::Json),
            ("loader --log-format=json fetch --nonsense", LogFormat::Json),
            ("loader --log-format=json", LogFormat::Json),
            ("loader --log-format json steal", LogFormat::Json),
            ("loader fetch --log-format yaml", LogFormat::Text),
            ("loader fetch --nonsense", LogFormat::Text),
        ] {
            let command = CommandLine::command().ignore_errors(true);
            let matches = command.try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(wanted(&matches), form, "{line}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_as_ever() {
        for (line, part) in [
            (&["loader", "fetch", "--manifest", "12"][..], "'12'"),
            (&["loader", "fetch", "--contract", "0x12"], "0x12"),
            (&["loader", "fetch", "--peer", "/ip4/192.0.2.7/tcp"], "/ip4/192.0.2.7/tcp"),
            (&["loader", "fetch", "--wait", "soon"], "expected a whole number and a unit"),
            (&["loader", "fecth"], "'fecth'"),
        ] {
            assert!(shown(line).contains(part), "{}", shown(line));
        }
        let hidden = shown(&["loader", "fetch", "--wait", "https://h/Xk29fQw7"]);
        assert!(
            hidden.contains("'--wait <DURATION>'") && hidden.contains("expected a whole number"),
            "{hidden}"
        );
    }
}
