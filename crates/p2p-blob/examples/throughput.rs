//! How fast one node fetches from another over loopback, each in a process of its own.
//!
//! ```text
//! cargo run --release -p p2p-blob --example throughput -- [tcp|quic] [ranges|blobs] [memory|file] [MiB] [sessions]
//! ```
//!
//! Prints, per round, MB/s (10^6 bytes) and the CPU-seconds per GB (10^9 bytes) of both ends. Bytes are not verified.
#![expect(clippy::print_stdout, reason = "it is a command")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead as _, IoSliceMut, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use manifest::{ByteRange, Digest, Have};
use p2p_blob::{
    Blob, Config, FetchError, GetRequest, Identity, Multiaddr, ReadOutcome, Session, Store, Versions,
};
use rustix::io::{ReadWriteFlags, preadv2};

const PIECE_BYTES: usize = 1 << 20;
const ROUNDS: usize = 5;
/// Any name: nobody hashes the bytes here.
const BLOB: Digest = Digest::from_bytes([7; 32]);

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize, default: &str| args.get(index).map_or(default, String::as_str).to_owned();
    if arg(0, "") == "serve" {
        return serve(&arg(1, ""), &arg(2, ""), &arg(3, ""), arg(4, "").parse()?).await;
    }
    let (transport, version, place) = (arg(0, "tcp"), arg(1, "ranges"), arg(2, "memory"));
    let size_bytes = arg(3, "512").parse::<u64>()? << 20;
    let sessions: usize = arg(4, "1").parse()?;
    let seeder = Seeder::start(&transport, &version, &place, size_bytes)?;

    let (client, _task) = p2p_blob::start(Config::new(Identity::ephemeral()), Arc::new(Nothing))?;
    let peer = client.connect(seeder.addr.clone()).await?;
    let target = match place.as_str() {
        "file" => Some(Arc::new(tempfile::tempfile()?)),
        _ => None,
    };
    println!("{transport} {version} {place}, {} MiB, {sessions} sessions", size_bytes >> 20);
    for _ in 0..ROUNDS {
        let (start, ours, theirs) = (Instant::now(), cpu_seconds("self")?, cpu_seconds(&seeder.pid())?);
        let share = size_bytes / sessions as u64;
        let mut fetches = tokio::task::JoinSet::new();
        for index in 0..sessions as u64 {
            let (session, target) = (client.open(peer).await?, target.clone());
            let range = ByteRange::new(index * share, (index + 1) * share);
            match session {
                Session::Ranges(session) => fetches.spawn(fetch_ranges(session, range, target)),
                Session::Blobs(session) => fetches.spawn(fetch_blob(session, target)),
            };
        }
        while let Some(result) = fetches.join_next().await {
            result??;
        }
        let gigabytes = size_bytes as f64 / 1e9;
        println!(
            "{:7.0} MB/s   CPU-s/GB: fetcher {:.2}, seeder {:.2}",
            gigabytes * 1e3 / start.elapsed().as_secs_f64(),
            (cpu_seconds("self")? - ours) / gigabytes,
            (cpu_seconds(&seeder.pid())? - theirs) / gigabytes,
        );
    }
    Ok(())
}

/// Eight workers share a session; each has one buffer.
async fn fetch_ranges(
    session: p2p_blob::RangeSession,
    range: ByteRange,
    target: Option<Arc<File>>,
) -> Result<(), AnyError> {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (session, target) = (session.clone(), target.clone());
        workers.spawn(async move {
            let mut buf = vec![0; PIECE_BYTES];
            let mut offset = range.start + worker * PIECE_BYTES as u64;
            while offset < range.end {
                let range = ByteRange::new(offset, offset + PIECE_BYTES as u64);
                let request = GetRequest { manifest: None, blob: BLOB, blob_size_bytes: None, range };
                buf = session.get(request, buf).await?;
                buf = write(&target, buf, offset).await?;
                offset += 8 * PIECE_BYTES as u64;
            }
            Ok::<_, AnyError>(())
        });
    }
    while let Some(result) = workers.join_next().await {
        result??;
    }
    Ok(())
}

async fn fetch_blob(session: p2p_blob::BlobSession, target: Option<Arc<File>>) -> Result<(), AnyError> {
    let missing = FetchError::NotFound { peer: p2p_blob::source_id(&session.peer()), blob: BLOB };
    let mut body = session.request(BLOB).await?.ok_or(missing)?;
    let mut buf = vec![0; PIECE_BYTES];
    for offset in (0..body.size_bytes()).step_by(PIECE_BYTES) {
        body.read_exact(&mut buf).await?;
        buf = write(&target, buf, offset).await?;
    }
    Ok(())
}

async fn write(target: &Option<Arc<File>>, buf: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
    let Some(target) = target.clone() else { return Ok(buf) };
    let job = tokio::task::spawn_blocking(move || target.write_all_at(&buf, offset).map(|()| buf));
    job.await.map_err(io::Error::other).flatten()
}

/// The other process.
struct Seeder {
    child: Child,
    addr: Multiaddr,
}

impl Seeder {
    fn start(transport: &str, version: &str, place: &str, size_bytes: u64) -> Result<Self, AnyError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", transport, version, place, &size_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            io::BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok(Self { child, addr: line.trim().parse()? })
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // It ends when its standard input does.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

async fn serve(transport: &str, version: &str, place: &str, size_bytes: u64) -> Result<(), AnyError> {
    let source = match place {
        "file" => {
            let mut file = tempfile::tempfile()?;
            for _ in 0..size_bytes >> 20 {
                file.write_all(&[7; PIECE_BYTES])?;
            }
            Source { file: Some(file), size_bytes }
        }
        _ => Source { file: None, size_bytes },
    };
    let listen = match transport {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    let versions = if version == "blobs" { Versions::OnlyBlobs } else { Versions::Both };
    let config =
        Config::new(Identity::ephemeral()).with_listen(vec![listen.parse()?]).with_versions(versions);
    let (client, _task) = p2p_blob::start(config, Arc::new(One(Arc::new(source))))?;
    let addrs = client.listen_addrs().wait_for(|addrs| !addrs.is_empty()).await?.clone();
    println!("{}", addrs[0]);
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    client.shutdown().await;
    Ok(())
}

struct Nothing;

impl Store for Nothing {
    fn open(&self, _: Option<&Digest>, _: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        Ok(None)
    }

    fn have(&self, _: &Digest, _: u64) -> io::Result<Option<Have>> {
        Ok(None)
    }
}

/// A store of one blob.
struct One(Arc<Source>);

impl Store for One {
    fn open(&self, _: Option<&Digest>, _: &Digest) -> io::Result<Option<Arc<dyn Blob>>> {
        Ok(Some(Arc::<Source>::clone(&self.0)))
    }

    fn have(&self, _: &Digest, _: u64) -> io::Result<Option<Have>> {
        Ok(None)
    }
}

/// A file, or bytes out of nowhere.
struct Source {
    file: Option<File>,
    size_bytes: u64,
}

impl Blob for Source {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        match &self.file {
            Some(file) => file.read_exact_at(buf, offset)?,
            None => buf.fill(7),
        }
        Ok(ReadOutcome::Held)
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<Option<ReadOutcome>> {
        match &self.file {
            Some(file) => {
                let wanted_bytes = buf.len();
                let read = preadv2(file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT);
                Ok(read.is_ok_and(|bytes| bytes == wanted_bytes).then_some(ReadOutcome::Held))
            }
            None => self.read_at(offset, buf).map(Some),
        }
    }
}

/// User and system time of a process so far, from Linux's `/proc`.
fn cpu_seconds(pid: &str) -> Result<f64, AnyError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
