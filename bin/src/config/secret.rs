//! Passwords and keys, and how not to show one that was given in a wrong place.

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;

use crate::exit::Usage;

/// The variables below, which may hold keys or a password: commands that are run do not get them.
pub(crate) const SECRET_VARIABLES: [&str; 5] = [RPC_URL, RPC_HEADER, TRUSTED_RPC, WS_URL, PASSWORD_VARIABLE];
/// Flags whose values hold keys.
const SECRET_FLAGS: [&str; 4] = ["--rpc-url", "--rpc-header", "--trusted-rpc", "--ws-url"];
pub(crate) const RPC_URL: &str = "LOADER_RPC_URL";
pub(crate) const RPC_HEADER: &str = "LOADER_RPC_HEADER";
pub(crate) const TRUSTED_RPC: &str = "LOADER_TRUSTED_RPC";
pub(crate) const WS_URL: &str = "LOADER_WS_URL";
/// Holds a keystore's password unless a file does.
pub(crate) const PASSWORD_VARIABLE: &str = "LOADER_KEYSTORE_PASSWORD";
/// No password is longer.
const MAX_PASSWORD_BYTES: u64 = 4096;
/// So many hexadecimal characters in a row are a key rather than a name.
const KEY_DIGITS: usize = 32;

/// A variable that a flag names, such as the one with a private key.
pub(crate) fn of_variable(flag: &str, variable: &str) -> Result<String> {
    let is_name = !variable.starts_with(|first: char| first.is_ascii_digit())
        && !variable.is_empty()
        && variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name || looks_like_a_key(variable) {
        return Err(Usage::new(format!(
            "{flag} takes the name of an environment variable that holds the key, not the key; what it was given is not \
             shown"
        ))
        .into());
    }
    of_known_variable(variable)?
        .ok_or_else(|| Usage::new(format!("the environment variable {variable} is not set")).into())
}

/// The keystore's password, if the variable for it is set.
pub(crate) fn password_of_variable() -> Result<Option<String>> {
    of_known_variable(PASSWORD_VARIABLE)
}

fn of_known_variable(variable: &str) -> Result<Option<String>> {
    match env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(Usage::new(format!("the variable {variable} is not text")).into())
        }
    }
}

/// The first line of a file that only its owner can access, or of a pipe.
pub(crate) fn password_of_file(path: &Path) -> Result<String> {
    // The path may be the password.
    let refuse = |error: std::io::Error| {
        Usage::new(format!(
            "cannot read the file that --password-file names ({error}): it takes a path, not a password"
        ))
    };
    let file = File::open(path).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(Usage::new(format!(
            "the password file {path} has mode {mode:04o}, expected 0600: others may have read it; change the password, and \
             `chmod 600 {path}`",
            path = path.display()
        ))
        .into());
    }
    let mut line = String::new();
    BufReader::new(file.take(MAX_PASSWORD_BYTES + 1)).read_line(&mut line).map_err(refuse)?;
    if line.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(Usage::new(format!("the password has more than {MAX_PASSWORD_BYTES} bytes")).into());
    }
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Refuses a key in the place of a file's path, which messages would show.
pub(crate) fn is_path(flag: &str, path: &Path) -> Result<()> {
    if !path.exists() && looks_like_a_key(&path.to_string_lossy()) {
        return Err(Usage::new(format!(
            "there is no file where {flag} says, and what it was given looks like a key: it takes a path, and is not shown"
        ))
        .into());
    }
    Ok(())
}

/// Whether an argument, as in `--rpc-url <URL>`, holds a key.
pub(crate) fn is_secret_flag(argument: &str) -> bool {
    argument.split(' ').next().is_some_and(|flag| SECRET_FLAGS.contains(&flag))
}

/// Whether a text is rather a key, or holds one, than the name of anything.
pub(crate) fn looks_like_a_key(text: &str) -> bool {
    let digits = text.split(|char: char| !char.is_ascii_hexdigit());
    text.contains("://") || digits.into_iter().any(|run| run.len() >= KEY_DIGITS)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_a_name_is_taken_for_a_variable_and_only_a_name_is_shown() {
        let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        for bad in [
            key,
            &format!("0x{key}"),
            &format!("KEY_{key}"),
            "",
            "hunter 2",
            "pass-word",
            "9word",
            "é",
            "a=b",
        ] {
            let error = of_variable("--private-key-env", bad).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--private-key-env"), "{error}");
            assert!(bad.is_empty() || !format!("{error:?}").contains(bad), "{error:?}");
        }
        let error = of_variable("--private-key-env", "LOADER_TEST_NOT_SET").unwrap_err();
        assert!(
            error.is::<Usage>() && error.to_string().contains("LOADER_TEST_NOT_SET is not set"),
            "{error}"
        );
    }

    #[test]
    fn a_password_is_the_first_line_of_a_file_of_its_owner() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (content, password) in [("", ""), ("a b ", "a b "), ("x\r\ny\n", "x"), ("\ny", "")] {
            file.as_file().set_len(0).unwrap();
            file = {
                let (_, path) = file.into_parts();
                tempfile::NamedTempFile::from_parts(File::create(&path).unwrap(), path)
            };
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(password_of_file(file.path()).unwrap(), password, "{content:?}");
        }
        for mode in [0o640, 0o604, 0o644, 0o660] {
            file.as_file().set_permissions(Permissions::from_mode(mode)).unwrap();
            let error = password_of_file(file.path()).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("chmod 600"), "{mode:o}: {error}");
        }
        let error = password_of_file(Path::new("hunter2")).unwrap_err();
        assert!(error.is::<Usage>() && !format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(password_of_file(Path::new("/dev/zero")).is_err());
        assert!(password_of_file(Path::new("/dev/null")).unwrap().is_empty());
    }

    #[test]
    fn a_key_is_no_path() {
        let key = "ab".repeat(32);
        let error = is_path("--keystore", Path::new(&key)).unwrap_err();
        assert!(error.is::<Usage>() && !format!("{error:?}").contains(&key), "{error:?}");
        assert!(is_path("--keystore", Path::new("no/such/key.json")).is_ok());
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join(&key)).unwrap();
        assert!(is_path("--keystore", &dir.path().join(&key)).is_ok());
    }
}
