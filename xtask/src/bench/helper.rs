//! What this program does as a child of itself: becomes another program, copies a file over TCP, touches memory, or keeps
//! CPUs busy; each on the CPUs it is told.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

pub(crate) const ON: &str = "on";
pub(crate) const BECOME: &str = "become";
pub(crate) const SEND: &str = "send";
pub(crate) const RECEIVE: &str = "receive";
pub(crate) const TOUCH: &str = "touch";
pub(crate) const SPIN: &str = "spin";

/// Large enough that calls cost nothing, small enough for the cache of a core.
const BUFFER_BYTES: usize = 256 << 10;

/// Runs `become PROGRAM ARGS…`, `send FILE`, `receive ADDRESS FILE`, `touch BYTES` or `spin MS`, or one of them `on CPU,CPU…`. All
/// are killed when their parent ends: only a process itself can ask for that, so that other programs are started through here.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to be killed with the parent")?;
    let Some((duty, args)) = args.split_first() else { bail!("a child needs a duty") };
    match (duty.to_str(), args) {
        // Before there are threads, and before another program counts its CPUs.
        (Some(ON), [cpus, duty @ ..]) => {
            stay_on(&cpus.to_string_lossy())?;
            run(duty)
        }
        (Some(BECOME), [program, args @ ..]) => {
            let error = Command::new(program).args(args).exec();
            Err(error).with_context(|| format!("cannot run {}", program.display()))
        }
        (Some(SEND), [file]) => send(file),
        (Some(RECEIVE), [address, file]) => receive(&address.to_string_lossy(), file),
        (Some(TOUCH), [bytes]) => touch(bytes.to_string_lossy().parse().context("touch needs a number")?),
        (Some(SPIN), [ms]) => {
            spin(Duration::from_millis(ms.to_string_lossy().parse().context("spin needs a number")?));
            Ok(())
        }
        _ => bail!("a child knows no duty `{}` with {} arguments", duty.display(), args.len()),
    }
}

/// How CPUs are named to [`ON`].
pub(crate) fn cpu_list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn stay_on(cpus: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.split(',') {
        let number = cpu.parse().ok().filter(|cpu| *cpu < CpuSet::MAX_CPU);
        set.set(number.with_context(|| format!("`{cpu}` is no CPU"))?);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPUs {cpus}"))
}

/// Says where it listens, and sends the file to everybody who comes, as many at once as come.
fn send(path: &OsString) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    thread::scope(|scope| {
        loop {
            let (mut stream, _) = listener.accept().context("cannot accept")?;
            let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            // Whoever got less than the file fails, or is found to have another one.
            scope.spawn(move || copy(&mut file, &mut stream));
        }
    })
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

/// Keeps two CPUs busy for so long, if it may use two.
fn spin(time: Duration) {
    let until = Instant::now() + time;
    let busy = move || {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(busy);
        busy();
    });
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
