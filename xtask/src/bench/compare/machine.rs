//! The machine on which it was measured.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};

use crate::bench::proc::kib_field;

pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    /// Averages over 1, 5 and 15 minutes, before anything was run.
    pub(crate) load: String,
}

impl Machine {
    /// `dir` is on the file system that is used.
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpu: cpu_model(&read("/proc/cpuinfo")?).unwrap_or("unknown").to_owned(),
            cores: available_parallelism().context("cannot count the cores")?.get(),
            memory_bytes: kib_field(&read("/proc/meminfo")?, "MemTotal").unwrap_or(0) << 10,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts")?, &dir).unwrap_or("unknown").to_owned(),
            load: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes.div_ceil(1 << 30);
        let Self { cpu, cores, kernel, file_system, load, .. } = self;
        write!(
            f,
            "{cores} cores of {cpu}, {gib} GiB, {file_system}, Linux {kernel}, load {load} at the start"
        )
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let value = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    value.map(|(_, model)| model.trim())
}

/// The type of the file system that `dir` is on: of the mounts above it, the nearest, and of those the last.
fn file_system<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_decides() {
        let mounts = "rootfs / rootfs rw 0 0\n/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/a")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmpfile")), Some("ext4"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn the_model_is_named_once() {
        let cpuinfo =
            "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(cpu_model(cpuinfo), Some("AMD EPYC"));
        assert!(Machine::look(Path::new("/")).unwrap().memory_bytes > 0);
    }
}
