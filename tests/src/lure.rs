//! Attackers that have a node dial their victims.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::Process;

/// An attacker with its victims, who tell who connects to them. Dropping it ends it.
#[derive(Debug)]
pub struct Lure {
    process: Process,
}

/// A connection to a victim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reached {
    /// How it was named.
    pub how: String,
    /// Where it is.
    pub at: SocketAddr,
}

impl Lure {
    /// Starts it. `command` is the attacker, with all that it needs to know.
    pub fn start(command: Command) -> Self {
        Self { process: Process::start(command) }
    }

    /// Where it is found, if it waits for nodes to come.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn address(&mut self) -> String {
        self.process.first_line().await
    }

    /// How many times it has named its victims since it began.
    ///
    /// # Panics
    /// When it has ended.
    pub async fn answered(&mut self) -> usize {
        answers(&self.process.prints(|_| true).await)
    }

    /// Waits until it has named them so many times since it began.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn answers(&mut self, count: usize) {
        self.process.prints(|text| answers(text) >= count).await;
    }

    /// Waits until the connections that there were to its victims are like this.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn reaches(&mut self, are_these: impl Fn(&[Reached]) -> bool) {
        self.process.prints(|text| are_these(&Reached::all(text))).await;
    }

    /// Ends it; all connections that there were to its victims.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(self) -> Vec<Reached> {
        self.process.terminate().await;
        Reached::all(&self.process.outcome().await.expect(0).stdout)
    }
}

fn answers(text: &str) -> usize {
    text.lines().filter(|line| *line == "answered").count()
}

impl Reached {
    fn all(text: &str) -> Vec<Self> {
        // A line may not be whole yet.
        let whole = &text[..text.rfind('\n').unwrap_or(0)];
        whole.lines().filter_map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let (how, at) = line.strip_prefix("reached ")?.split_once(' ')?;
        Some(Self { how: how.to_owned(), at: at.parse().unwrap() })
    }
}
