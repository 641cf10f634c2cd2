//! `cargo xtask bench folder`: folders beside one file of as many bytes, and beside what a user would fetch them with instead.

mod others;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::others::Other;
use super::compare::results::Spread;
use super::options::Options;
use super::{files, helper, process};

const LIMIT: Duration = Duration::from_secs(300);
const SIZE_BYTES: u64 = 2 << 30;
/// Small files: as many as make half the size, at this size.
const SMALL_BYTES: u64 = 50_000;

/// The case that others are put beside.
const FOUR: usize = 2;

/// What is published.
struct Case {
    name: String,
    source: PathBuf,
    flags: &'static [&'static str],
    /// The case beside which it is put: the one of one file with as many bytes.
    beside: usize,
    size_bytes: u64,
    /// What is made of it stays until the end: ext4 passes over the inodes of files that were removed within minutes, one by
    /// one, and thousands of them would be measured instead.
    is_kept: bool,
    /// `cp -r` and a sync of the file system.
    copy: Vec<Duration>,
    publish: Vec<Duration>,
    fetch: Vec<Duration>,
    again: Vec<Duration>,
}

struct Ground {
    loader: PathBuf,
    work: PathBuf,
}

/// Publishes and fetches each in turn, and puts what came of it where it belongs.
pub(crate) fn run(root: &Path, args: &[OsString]) -> Result<()> {
    let options = Options::parse(args, SIZE_BYTES)?;
    let (size_bytes, rounds, dir) = (options.size_bytes, options.rounds, options.results(root)?);
    let loader = options.loader(root)?;
    let ground = Ground { loader, work: dir.join("folder-work") };
    files::fresh_dir(&ground.work)?;
    let mut cases = cases(&ground.work, size_bytes)?;
    let four = cases[FOUR].source.clone();
    let elsewhere = others::Ground {
        root,
        source: &four,
        size_bytes,
        work: ground.work.join("others-work"),
        out: ground.work.join("others-out"),
    };
    let (mut others, mut left_out) = others::start(&elsewhere)?;
    for round in 0..=rounds {
        for case in &mut cases {
            let place =
                ground.work.join(if case.is_kept { format!("kept-{round}") } else { "removed".to_owned() });
            measure(&ground, case, &place)?;
            // The first time, a machine gets its memory.
            if round == 0 {
                for times in [&mut case.publish, &mut case.fetch, &mut case.again, &mut case.copy] {
                    times.clear();
                }
            }
        }
        others.retain_mut(|other| match other.measure(&elsewhere, round > 0) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("xtask: leaving out {}: {error:#}", other.name);
                left_out.push(format!("{}: failed in round {round}: {error:#}", other.name));
                false
            }
        });
    }
    files::remove_dir(&ground.work)?;
    let page = page(&cases, rounds) + &page_of_others(&others, &left_out, &cases[FOUR]);
    files::save(&dir.join("folder.md"), &page)?;
    println!("{page}");
    Ok(())
}

fn cases(work: &Path, size_bytes: u64) -> Result<Vec<Case>> {
    let source = |name: &str| -> Result<PathBuf> {
        let dir = work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    };
    let one = source("one")?.join("model.safetensors");
    files::make_source(&one, size_bytes)?;
    let four = source("four")?;
    for part in 1..=4 {
        files::make_source(&four.join(format!("model-0000{part}-of-00004.bin")), size_bytes / 4)?;
    }
    let half = source("half")?.join("model.safetensors");
    files::make_source(&half, size_bytes / 2)?;
    let (many, count) = (source("many")?, size_bytes / 2 / SMALL_BYTES);
    for file in 0..count {
        let folder = source(&format!("many/{}", file % 100))?;
        files::make_source_unsynced(&folder.join(file.to_string()), SMALL_BYTES, file + 1)?;
    }
    let case = |name: String, source: &Path, flags, beside| Case {
        name,
        source: source.to_owned(),
        flags,
        beside,
        size_bytes: if beside == 0 { size_bytes } else { size_bytes / 2 },
        is_kept: source == many,
        copy: Vec::new(),
        publish: Vec::new(),
        fetch: Vec::new(),
        again: Vec::new(),
    };
    let mib = size_bytes >> 20;
    Ok(vec![
        case(format!("one file of {mib} MiB, without a name"), &one, &["--no-names"], 0),
        case("the same with its name".to_owned(), &one, &[], 0),
        case(format!("four files of {} MiB, file by file", mib / 4), &four, &["--layout", "files"], 0),
        case("the same as rows".to_owned(), &four, &["--layout", "rows"], 0),
        case(format!("one file of {} MiB", mib / 2), &half, &[], 4),
        case(format!("{count} files of {SMALL_BYTES} bytes"), &many, &[], 4),
    ])
}

fn measure(ground: &Ground, case: &mut Case, place: &Path) -> Result<()> {
    let (cache, fetched, log) = (place.join("cache"), place.join("fetched"), ground.work.join("log"));
    files::fresh_dir(place)?;
    case.copy.push(copy(&case.source, &place.join("copy"))?);
    if !case.is_kept {
        files::remove_dir(&place.join("copy"))?;
    }
    files::fresh_dir(&cache)?;
    files::fresh_dir(&fetched)?;
    let touch = || -> Result<String> {
        let mut touch = process::ours(&fetched, helper::TOUCH);
        process::answer(touch.arg((case.size_bytes * 5 / 4).to_string()), &log, LIMIT)
    };
    touch()?;
    let mut publish = process::command(&cache, &ground.loader);
    publish.arg("publish").arg(&case.source).args(case.flags);
    publish.args(["--model-kind", "simplenet", "--cache-dir", "."]);
    case.publish.push(process::measure(&mut [publish], &log, LIMIT)?.wall);
    let mut list = process::command(&cache, &ground.loader);
    list.args(["cache", "ls", "--cache-dir", "."]);
    let listed = process::answer(&mut list, &log, LIMIT)?;
    let manifest = listed.split(' ').next().context("nothing is in the cache")?.to_owned();
    let mut serve = process::command(&cache, &ground.loader);
    serve.args(["serve", "--no-mdns", "--cache-dir", ".", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let seeder = process::Service::start(serve, &log)?;
    let address = seeder.wait_for(LIMIT, |line| line.starts_with("/ip4/").then(|| line.to_owned()))?;
    touch()?;
    let mut fetch = process::command(&fetched, &ground.loader);
    fetch.args(["fetch", "--no-mdns", "--cache-dir", ".", "--manifest", &manifest, "--peer", &address]);
    case.fetch.push(process::measure(&mut [fetch], &log, LIMIT)?.wall);
    // What takes milliseconds is not looked at while it runs.
    let mut again = Command::new(&ground.loader);
    again.args(["fetch", "--no-mdns", "--cache-dir", ".", "--manifest", &manifest]);
    again.current_dir(&fetched).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = again.status().context("cannot start loader")?;
    case.again.push(started.elapsed());
    if !status.success() {
        bail!("a cached model does not start: {status}");
    }
    Ok(())
}

/// What copying takes, until it is on the disk.
fn copy(source: &Path, to: &Path) -> Result<Duration> {
    fs::create_dir(to).with_context(|| format!("cannot create {}", to.display()))?;
    let started = Instant::now();
    let status = Command::new("cp").arg("-r").arg(source).arg(to).status().context("cannot start cp")?;
    if !status.success() {
        bail!("cp -r of {} failed: {status}", source.display());
    }
    rustix::fs::syncfs(fs::File::open(to.parent().unwrap_or(to))?)?;
    Ok(started.elapsed())
}

fn page(cases: &[Case], rounds: usize) -> String {
    let mut page = format!(
        "{rounds} rounds, after one that is not counted: medians (fastest–slowest round), and × the one file of as many bytes. Both ends on one machine.\n\n\
         | | publish, s | × | fetch, s | × | the whole command when cached, ms | `cp -r` and a sync, s |\n|---|---|---|---|---|---|---|\n"
    );
    for case in cases {
        let beside = &cases[case.beside];
        let row = |own: &[Duration], other: &[Duration]| {
            let (middle, low, high) = spread(own);
            format!("{middle:.2} ({low:.2}–{high:.2}) | {:.2}", middle / spread(other).0)
        };
        let (publish, fetch) = (row(&case.publish, &beside.publish), row(&case.fetch, &beside.fetch));
        let _ = writeln!(
            page,
            "| {} | {publish} | {fetch} | {:.0} | {:.2} |",
            case.name,
            1000.0 * spread(&case.again).0,
            spread(&case.copy).0
        );
    }
    page
}

/// What others need for the folder that [`FOUR`] is of.
fn page_of_others(others: &[Other], left_out: &[String], ours: &Case) -> String {
    let mut page = format!(
        "\nBeside others: {}. The whole command, then until all of it is on the disk, and × ours.\n\n\
         | | the command, s | on the disk, s | × | verifies |\n|---|---|---|---|---|\n",
        ours.name
    );
    let cell = |times: &[Duration]| {
        let (middle, low, high) = spread(times);
        format!("{middle:.2} ({low:.2}–{high:.2})")
    };
    let _ = writeln!(page, "| loader fetch | – | {} | 1.00 | each MiB as it arrives |", cell(&ours.fetch));
    for other in others {
        let ratio = spread(&other.on_disk).0 / spread(&ours.fetch).0;
        let (ended, on_disk) = (cell(&other.ended), cell(&other.on_disk));
        let _ = writeln!(page, "| {} | {ended} | {on_disk} | {ratio:.2} | {} |", other.name, other.verifies);
    }
    let mut versions: Vec<&str> = others.iter().map(|other| other.version.as_str()).collect();
    versions.dedup();
    let _ = writeln!(page, "\nVersions: {}.", versions.join(", "));
    for reason in left_out {
        let _ = writeln!(page, "Left out: {reason}.");
    }
    page
}

/// Median, least and most, in seconds.
fn spread(times: &[Duration]) -> (f64, f64, f64) {
    let spread = Spread::of(times.iter().map(Duration::as_secs_f64));
    spread.map_or((0.0, 0.0, 0.0), |spread| (spread.median, spread.min, spread.max))
}
