//! The systemd units of `docs/operations.md`, as printed there.

use std::path::Path;
use std::process::Command;

use e2e::{Home, put};

/// The units, by their names.
fn units() -> Vec<(String, String)> {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")).unwrap();
    let blocks = page.split("```ini\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let named = blocks.filter_map(|block| {
        let (first, unit) = block.split_once('\n')?;
        let name = first.strip_prefix("# /etc/systemd/system/")?;
        Some((name.to_owned(), unit.to_owned()))
    });
    named.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_say_what_the_commands_understand() {
    let units = units();
    assert_eq!(units.len(), 4, "{units:?}");
    let home = Home::new();
    let mut commands = 0;
    for (name, unit) in &units {
        assert!(unit.contains("[Install]\nWantedBy="), "{name} cannot be enabled");
        let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let Some(line) = started.strip_prefix("/usr/local/bin/loader ") else { continue };
        commands += 1;
        assert!(unit.contains("\nUser=loader\n") && unit.contains("\nProtectSystem=strict\n"), "{name}");
        let words: Vec<&str> = line.split(' ').collect();
        let help = home.plain([words[0], "--help"]).await.expect(0).stdout;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{flag} ")), "{name}: {flag} is no flag of {}", words[0]);
        }
    }
    assert_eq!(commands, 3);
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let units = units();
    let home = Home::new();
    let of = |name: &str| home.path(name);
    for (name, unit) in &units {
        // Programs that this machine has.
        let unit = unit.replace("/usr/local/bin/loader", "/bin/true");
        put(&of(name), unit.as_bytes());
    }
    let files = units.iter().map(|(name, _)| of(name));
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(files).output() {
        // Where there is no systemd there is nothing to run them, and the other test has read them.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && !told.contains("loader-") && !told.contains("inference.service"),
                "{told}"
            );
        }
    }
}
