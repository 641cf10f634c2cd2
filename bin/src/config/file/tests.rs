//! What a settings file may say, and how it is told what it may not.

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
    File::parse(file.path(), &text, &root)?.settings(name, None)
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
                ArgAction::SetTrue => "true".to_owned(),
                ArgAction::Count => "2".to_owned(),
                _ => match arg.get_possible_values().first() {
                    Some(named) => format!("'{}'", named.get_name()),
                    None => [
                        "7",
                        "'7s'",
                        "'7MiB'",
                        "'/ip4/192.0.2.1/tcp/1'",
                        "'0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'",
                        "'http://h'",
                        "'ws://h'",
                        "'12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7'",
                        "'0000000000000000000000000000000000000000000000000000000000000000'",
                    ]
                    .into_iter()
                    .find(|value| settings(format!("{key} = {value}").as_bytes(), &name).is_ok())
                    .unwrap_or_else(|| panic!("{path} --{key} takes none of the values of this test"))
                    .to_owned(),
                },
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
    let toml = "peer = '/ip4/192.0.2.1/tcp/1'\nstring-slot = 0x1_0\nhttp = 4300\nverbose = 2\nquorum = '2'";
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
        let settings = file.settings(name, None).unwrap().into_iter();
        settings.map(|setting| format!("{:?}", setting.given)).collect::<Vec<_>>().join(" ")
    };
    let serve = values(&["serve"]);
    assert!(serve.contains("/etc/models") && serve.contains("\"/srv/model\"") && serve.contains("/etc/a"));
    assert!(values(&["fetch"]).contains("[\"a\"]"));
    assert!(read(Path::new("/nowhere/loader.toml")).unwrap().is_none());
    assert!(read(Path::new("/")).unwrap_err().is::<Usage>());
}

#[test]
fn what_is_wrong_is_told_by_its_place() {
    for (toml, part) in [
        ("cache_dir = '/f'", "line 1, column 1: there is no such setting; did you mean cache-dir?"),
        ("wait = '1s'\n  rpc-urls = []", "line 2, column 3: there is no such setting; did you mean rpc-url?"),
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

const A: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const B: &str = "0x0000000000000000000000000000000000000009";

#[test]
fn a_contract_has_its_own_and_else_what_all_have() {
    let toml = format!(
        "rpc-url = 'http://all'\nkeep = 3\n[watch]\nkeep = 2\n[[contract]]\naddress = '{A}'\nkeep = 1\n\
         exec = 'a'\n[[contract]]\naddress = '{B}'\nrpc-url = ['http://b']\n"
    );
    let (mut root, path) = (CommandLine::command(), Path::new("/loader.toml"));
    root.build();
    let file = File::parse(path, &toml, &root).unwrap();
    let said = |name: &[&str], contract| {
        let settings = file.settings(name, contract).unwrap().into_iter();
        let text = |setting: Setting| match setting.given {
            Given::Values(values) => format!("{}={}", setting.key, values[0].to_str().unwrap()),
            Given::Times(_) => setting.key,
        };
        settings.map(text).collect::<Vec<_>>()
    };
    assert_eq!(file.contracts(&["watch"]).len(), 2);
    let a = format!("contract={A}");
    assert_eq!(said(&["watch"], Some(0)), [&*a, "keep=1", "exec=a", "rpc-url=http://all"]);
    assert_eq!(said(&["serve"], Some(0)), [&*a, "keep=1", "rpc-url=http://all"]);
    let b = format!("contract={B}");
    assert_eq!(said(&["watch"], Some(1)), [&*b, "rpc-url=http://b", "keep=2"]);
    assert_eq!(said(&["watch"], None), ["keep=2", "rpc-url=http://all"]);
    assert_eq!(file.contract_at(&["fetch"], B.parse().unwrap()), Some(1));
    // One that is named for a command is the only one.
    let toml = format!("[[contract]]\naddress = '{A}'\n[serve]\ncontract = '{B}'");
    let file = File::parse(path, &toml, &root).unwrap();
    assert_eq!((file.contracts(&["serve"]).len(), file.contracts(&["watch"]).len()), (0, 1));
}

#[test]
fn what_is_wrong_with_a_contract_is_told_by_its_place() {
    for (toml, part) in [
        ("[[contract]]\nkeep = 1".to_owned(), "line 2, column 1: a contract needs its address"),
        ("contract = [{}]".to_owned(), "line 1, column 1: a contract needs its address"),
        ("contract = []".to_owned(), "line 1, column 12, contract: expected one ADDRESS"),
        ("[[contract]]\naddress = '0x1'".to_owned(), "line 2, column 11, contract: expected 0x and 40"),
        (
            format!("[[contract]]\naddress = '{A}'\nkeeps = 1"),
            "line 3, column 1: there is no such setting; did you mean keep?",
        ),
        (
            format!("[[contract]]\naddress = '{A}'\npeer = 'a'"),
            "line 3, column 1: a contract has no such setting: it has",
        ),
        (
            format!("[[contract]]\naddress = '{A}'\ncontract = '{B}'"),
            "line 3, column 1: a contract has no such",
        ),
        (
            format!("[[contract]]\naddress = '{A}'\n[[contract]]\naddress = '{}'", A.to_lowercase()),
            "line 4, column 1: this contract stands here already",
        ),
        (
            format!("[[contract]]\naddress = '{A}'\n[[contract]]\nchain-id = 5\naddress = '{A}'"),
            "line 4, column 1: this contract stands here already",
        ),
    ] {
        let shown = refusal(toml.as_bytes());
        assert!(shown.contains(part), "{toml}: {shown}");
    }
    let two =
        format!("[[contract]]\naddress = '{A}'\nchain-id = 1\n[[contract]]\nchain-id = 5\naddress = '{A}'");
    assert!(settings(two.as_bytes(), &["watch"]).is_ok());
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
        "[[contract]]\n'KEY' = 1",
        "[[contract]]\naddress = 'KEY'",
        "[[contract]]\nrpc-url = 'x:KEY'",
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
