//! What this program does as a child of itself: becomes another program, copies a file over TCP, or touches memory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

pub(crate) const BECOME: &str = "become";
pub(crate) const SEND: &str = "send";
pub(crate) const RECEIVE: &str = "receive";
pub(crate) const TOUCH: &str = "touch";

/// Large enough that calls cost nothing, small enough for the cache of a core.
const BUFFER_BYTES: usize = 256 << 10;

/// Runs `become PROGRAM ARGS…`, `send FILE`, `receive ADDRESS FILE` or `touch BYTES`. All are killed when their parent ends: only a
/// process itself can ask for that, so that other programs are started through here.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to be killed with the parent")?;
    let Some((duty, args)) = args.split_first() else { bail!("a child needs a duty") };
    match (duty.to_str(), args) {
        (Some(BECOME), [program, args @ ..]) => {
            let error = Command::new(program).args(args).exec();
            Err(error).with_context(|| format!("cannot run {}", program.display()))
        }
        (Some(SEND), [file]) => send(file),
        (Some(RECEIVE), [address, file]) => receive(&address.to_string_lossy(), file),
        (Some(TOUCH), [bytes]) => touch(bytes.to_string_lossy().parse().context("touch needs a number")?),
        _ => bail!("a child knows no duty `{}` with {} arguments", duty.display(), args.len()),
    }
}

/// Says where it listens, and sends the file to everybody who comes, one after the other.
fn send(path: &OsString) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept().context("cannot accept")?;
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        copy(&mut file, &mut stream)?;
    }
}

fn receive(address: &str, path: &OsString) -> Result<()> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    copy(&mut stream, &mut file)
}

/// Writes to so much memory, and gives it back.
fn touch(bytes: usize) -> Result<()> {
    const PAGE_BYTES: usize = 4096;
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).context("there is too little memory")?;
    memory.resize(bytes, 0_u8);
    memory.chunks_mut(PAGE_BYTES).for_each(|page| page[0] = 1);
    std::hint::black_box(&memory);
    Ok(())
}

/// Copies through one buffer. `std::io::copy` would leave the copying to the kernel, which cannot check anything.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).context("cannot write")?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read"),
        }
    }
}
