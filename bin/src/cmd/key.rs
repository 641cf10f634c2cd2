//! `loader key`, and where `publish` gets its key from.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use chain_reader::Signer;

use crate::answer::{Answer, KeyAnswer, Text};
use crate::args;
use crate::config::secret::{self, PASSWORD_VARIABLE};
use crate::exit::Usage;
use crate::output::Output;

pub(crate) fn run(command: &args::Key, output: &Output) -> Result<()> {
    let (signer, path) = match command {
        args::Key::New(flags) => {
            secret::is_path("--keystore", &flags.keystore)?;
            let password = new_password(flags.password_file.as_deref())?;
            (Signer::create_keystore(&flags.keystore, &password)?, &flags.keystore)
        }
        args::Key::Show(flags) => {
            secret::is_path("--keystore", &flags.keystore)?;
            let password = password(flags.password_file.as_deref(), &flags.keystore)?;
            (Signer::from_keystore(&flags.keystore, &password)?, &flags.keystore)
        }
    };
    output.answer(&Answer::Key(KeyAnswer { address: Text::of(signer.address()), path: path.clone() }))
}

/// The key that `publish` signs with.
pub(super) fn signer(flags: &args::Signing) -> Result<Signer> {
    if let Some(variable) = &flags.private_key_env {
        let key = secret::of_variable("--private-key-env", variable)?;
        return Signer::from_private_key(&key)
            .with_context(|| format!("the variable {variable} holds no key"));
    }
    let Some(keystore) = &flags.keystore else {
        return Err(Usage::new("to sign the transaction give --keystore or --private-key-env").into());
    };
    secret::is_path("--keystore", keystore)?;
    Ok(Signer::from_keystore(keystore, &password(flags.password_file.as_deref(), keystore)?)?)
}

/// From the file, else from the variable, else from whoever sits at the terminal.
fn password(file: Option<&Path>, keystore: &Path) -> Result<String> {
    match told(file)? {
        Some(password) => Ok(password),
        None => ask(&format!("password of {}: ", keystore.display())),
    }
}

/// The same for a new key: typed twice.
fn new_password(file: Option<&Path>) -> Result<String> {
    if let Some(password) = told(file)? {
        return Ok(password);
    }
    let password = ask("password of the new key: ")?;
    if ask("the same again: ")? != password {
        return Err(Usage::new("the two passwords differ: nothing was made").into());
    }
    Ok(password)
}

fn told(file: Option<&Path>) -> Result<Option<String>> {
    match file {
        Some(file) => secret::password_of_file(file).map(Some),
        None => secret::password_of_variable(),
    }
}

fn ask(prompt: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(Usage::new(format!(
            "the keystore needs its password: give --password-file or {PASSWORD_VARIABLE}, or run this at a terminal"
        ))
        .into());
    }
    rpassword::prompt_password(prompt).context("cannot read the password from the terminal")
}
