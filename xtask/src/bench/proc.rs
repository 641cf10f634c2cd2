//! What a process uses, read from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;

/// `utime` and `stime` count these, on every architecture that Linux and Rust share.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all threads of a process, of the ended ones too, in user and kernel mode. A process that has ended
/// has its last value until it is waited for.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_cpu_time(&stat).with_context(|| format!("{path} is not as proc_pid_stat(5) describes it"))
}

/// Anonymous memory of a process in bytes, without pages of mapped files. `None` when it has ended.
pub(crate) fn anonymous_bytes(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    kib_field(&status, "RssAnon").map(|kib| kib << 10)
}

/// The value of a line such as `RssAnon:   84 kB`, in a file that has one value a line.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, and may hold anything, parentheses and spaces too.
    let (_, fields) = stat.rsplit_once(')')?;
    // The rest begins with the third; user and system time are the 14th and 15th.
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.checked_add(ticks()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_user_and_system_whatever_the_name() {
        let stat = "17 (a) S 1 (b)) S 1 17 17 0 -1 4194304 99 0 1 0 250 31 7 8 20 0 1 0 100 1000 200";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(2810)));
        assert_eq!(parse_cpu_time("17 (a) S 1 17"), None);
        assert_eq!(parse_cpu_time(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSS:\t    9000 kB\nRssAnonymous:\t1 kB\nRssAnon:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(kib_field(status, "RssAnon"), Some(1234));
        assert_eq!(kib_field(status, "Threads"), None, "not a size");
        assert_eq!(kib_field(status, "RssShmem"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = rustix::process::getpid();
        assert!(cpu_time(pid).is_ok());
        assert!(anonymous_bytes(pid).unwrap() > 0);
    }
}
