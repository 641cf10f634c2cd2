//! Processes that hold a lock, as far as the system tells.

use std::fmt;
use std::fs;

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Its id.
    pub process: u32,
    /// The name of its command, where that is known; control characters are left out.
    pub name: Option<String>,
    /// It was stopped, as by SIGSTOP, and makes no progress until it is continued.
    pub is_stopped: bool,
    /// CPU time used, in hundredths of a second.
    pub(crate) used_ticks: u64,
}

/// All holders of one lock; empty when the system does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockHolders(pub Vec<LockHolder>);

impl LockHolders {
    pub(super) fn of(processes: &[u32]) -> Self {
        Self(processes.iter().map(|process| LockHolder::of(*process)).collect())
    }
}

impl LockHolder {
    fn of(process: u32) -> Self {
        let stat = fs::read(format!("/proc/{process}/stat")).unwrap_or_default();
        Self::in_stat(process, &String::from_utf8_lossy(&stat))
    }

    /// Reads Linux's `PID (NAME) STATE PPID …`. A name may have any character in it, so it ends at the last parenthesis.
    fn in_stat(process: u32, stat: &str) -> Self {
        let (before, after) = stat.rsplit_once(')').unwrap_or_default();
        let name = before.split_once('(').map(|(_, name)| name.replace(char::is_control, ""));
        // The state is the third field; the fourteenth and fifteenth are the times in user and in kernel mode.
        let fields: Vec<_> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        let is_stopped = matches!(fields.first(), Some(&("T" | "t")));
        Self { process, name, is_stopped, used_ticks: ticks(11).saturating_add(ticks(12)) }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, name, is_stopped, .. } = self;
        write!(f, "process {process}")?;
        if let Some(name) = name {
            write!(f, " ({name})")?;
        }
        if *is_stopped {
            write!(f, ", which is stopped (`kill -CONT {process}` has it go on)")?;
        }
        Ok(())
    }
}

impl fmt::Display for LockHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("another process");
        }
        for (position, holder) in self.0.iter().enumerate() {
            let separator = if position > 0 { " and " } else { "" };
            write!(f, "{separator}{holder}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_line_whatever_it_calls_itself() {
        let stat = "42 (lo)a\u{1b}d (er) T 1 42 42 0 -1 4194560 87 0 0 0 12 30 0 0 20 0 1 0 7 8 9";
        let found = LockHolder::in_stat(42, stat);
        assert_eq!(
            found.to_string(),
            "process 42 (lo)ad (er), which is stopped (`kill -CONT 42` has it go on)"
        );
        assert_eq!(found.used_ticks, 42);
        for nothing in ["", "42", "42 (x", ")("] {
            assert_eq!(LockHolder::in_stat(42, nothing).used_ticks, 0);
        }
        assert_eq!(LockHolder::in_stat(42, "").to_string(), "process 42");
        assert_eq!(LockHolders::default().to_string(), "another process");
        let two = LockHolders(vec![LockHolder::in_stat(1, ""), LockHolder::in_stat(2, "2 (b) S")]);
        assert_eq!(two.to_string(), "process 1 and process 2 (b)");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_runs() {
        let found = LockHolder::of(std::process::id());
        assert!(found.name.is_some() && !found.is_stopped, "{found:?}");
    }
}
