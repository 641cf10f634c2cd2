//! `cargo xtask image`: the container image of a release, from scratch, and a try of what is in it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::dist;
use crate::tool::{self, Tool};

const BUILDAH: Tool = Tool { name: "buildah", get_it: "`apt install buildah`" };
/// Where Debian and most others keep the certificates that https is checked with.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const NAME: &str = concat!("loader:", env!("CARGO_PKG_VERSION"));
/// The user in the image.
const USER: &str = "10001:10001";

/// Builds the image, tries it, and writes it to target/image.
pub(crate) fn run(root: &Path) -> Result<()> {
    let dir = root.join("target/image");
    install()?;
    // What an earlier run left may be mounted, and its layers belong to buildah.
    if dir.join("storage").exists() {
        tool::run(buildah(&dir).args(["rmi", "--all", "--force"]))?;
    }
    let context = dir.join("context");
    dist::remove(&context)?;
    dist::put(&dist::binary(root, "first")?, &context.join("root/bin/loader"))?;
    dist::put(Path::new(CERTIFICATES), &context.join("root").join(CERTIFICATES.trim_start_matches('/')))?;
    let user = "loader:x:10001:10001::/cache:/nologin\n";
    dist::write(&context.join("root/etc/passwd"), user.as_bytes())?;
    dist::write(&context.join("root/etc/group"), b"loader:x:10001:\n")?;
    fs::create_dir_all(context.join("cache")).context("cannot make the folder of the cache")?;
    let mut build = buildah(&dir);
    build.args(["build", "--isolation", "chroot", "--format", "oci", "--tag", NAME]);
    build.args(["--timestamp", &dist::commit_time(root)?, "--file"]);
    tool::run(build.arg(root.join("deploy/container/Containerfile")).arg(&context))?;
    attempt(&dir)?;
    let file = dir.join(format!("{}.oci.tar", NAME.replace(':', "-")));
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    tool::run(buildah(&dir).args(["push", NAME, &format!("oci-archive:{}:{NAME}", file.display())]))?;
    println!("{}", file.display());
    Ok(())
}

/// Buildah with images of its own, and with the driver that works in containers, too.
fn buildah(dir: &Path) -> Command {
    let mut command = Command::new(BUILDAH.name);
    command.arg("--root").arg(dir.join("storage")).arg("--runroot").arg(dir.join("run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

/// Debian's, where there is none and it can be had.
fn install() -> Result<()> {
    let has_it = || tool::answers(Command::new(BUILDAH.name).arg("--version"));
    if !has_it() && tool::answers(Command::new("apt-get").arg("--version")) {
        let mut install = Command::new("apt-get");
        tool::run(install.args(["install", "--yes", "--quiet", "--no-install-recommends", BUILDAH.name]))?;
    }
    tool::require(&[BUILDAH])
}

/// Publishes, seeds and fetches a small model with what is in the image: as its user, with a root that is read-only.
fn attempt(dir: &Path) -> Result<()> {
    let container = tool::output(buildah(dir).args(["from", "--pull-never", NAME]))?;
    let mounted = tool::output(buildah(dir).args(["mount", container.trim()]))?;
    let image = Image { root: PathBuf::from(mounted.trim()), cache: dir.join("caches") };
    dist::remove(&image.cache)?;
    let weights: Vec<u8> =
        (0..3_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    image.give("publisher")?;
    dist::write(&image.cache.join("publisher/weights.bin"), &weights)?;
    let publish =
        ["publish", "/cache/weights.bin", "--model-kind", "vl-jepa", "--cache-dir", "/cache/models"];
    let digest = tool::output(&mut image.command("publisher", &publish)?)?;
    let serve = ["serve", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--cache-dir", "/cache/models"];
    let (_seeder, address) = Seeder::start(image.command("publisher", &serve)?)?;
    image.give("fetcher")?;
    let fetch = ["fetch", "--no-mdns", digest.trim(), "--peer", &address];
    let path = tool::output(&mut image.command("fetcher", &fetch)?)?;
    let fetched = path.trim().strip_prefix("/cache/").context("the model is not in the cache")?;
    let fetched = fs::read(image.cache.join("fetcher").join(fetched)).context("cannot read the model")?;
    ensure!(fetched == weights, "the image fetched other bytes than were published");
    println!("the image works: as user {USER}, with a root that is read-only");
    tool::run(buildah(dir).args(["umount", container.trim()]))?;
    tool::run(buildah(dir).args(["rm", container.trim()]))
}

/// The root of the image, unpacked, and a folder of caches.
struct Image {
    root: PathBuf,
    cache: PathBuf,
}

impl Image {
    /// Makes a cache, which belongs to the image's user.
    fn give(&self, name: &str) -> Result<()> {
        let dir = self.cache.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        tool::run(Command::new("chown").arg(USER).arg(dir))
    }

    /// The program of the image with these arguments, in a mount namespace of its own, with what every runtime puts there.
    fn command(&self, cache: &str, args: &[&str]) -> Result<Command> {
        let script = "set -e; mount --bind \"$1\" \"$1\"; mkdir -p \"$1/dev\" \"$1/proc\"
            mount --rbind /dev \"$1/dev\"; mount --rbind /proc \"$1/proc\"
            touch \"$1/etc/resolv.conf\"; mount --bind /etc/resolv.conf \"$1/etc/resolv.conf\"
            mount --bind \"$2\" \"$1/cache\"; mount -o remount,bind,ro \"$1\"
            root=$1; shift 2; exec chroot --userspec=\"$USER\" \"$root\" /bin/loader \"$@\"";
        if !tool::answers(Command::new("unshare").args(["--mount", "true"])) {
            bail!("trying the image needs root, and `unshare` of util-linux");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&self.root).arg(self.cache.join(cache));
        command
            .args(args)
            .env_clear()
            .env("USER", USER)
            .env("LOADER_CACHE_DIR", "/cache")
            .env("HOME", "/cache");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }
}

/// A seeder, which ends with this value.
struct Seeder(Child);

impl Seeder {
    /// Starts it; gives its address as well.
    fn start(mut command: Command) -> Result<(Self, String)> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the seeder")?;
        let stdout = child.stdout.take().context("the seeder has no stdout")?;
        let seeder = Self(child);
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).context("cannot read what the seeder says")?;
        ensure!(address.starts_with("/ip4/"), "the seeder has not come up");
        Ok((seeder, address.trim().to_owned()))
    }
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
