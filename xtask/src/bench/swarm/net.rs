//! A network of its own: a switch, and nodes with lines of limited speed, each in a network namespace.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::bench::process;
use crate::tool;

/// What a line carries, in bytes per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) up: u64,
    pub(super) down: u64,
}

/// Bytes that pass at once, however slow the line is.
const BURST_BYTES: u64 = 64 << 10;
/// How long a packet waits before it is dropped.
const QUEUE: &str = "100ms";

/// The nodes; their namespaces are gone when this value is.
pub(super) struct Net {
    name: String,
    nodes: usize,
}

impl Net {
    /// A node for each line.
    pub(super) fn new(lines: &[Line]) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("`bench swarm` makes network namespaces: run it as root, in a container for instance");
        }
        let net = Self { name: format!("loader-{}", std::process::id()), nodes: lines.len() };
        let hub = net.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "switch", "up"])?;
        for (node, line) in lines.iter().enumerate() {
            net.add(node, *line)?;
        }
        Ok(net)
    }

    fn add(&self, node: usize, line: Line) -> Result<()> {
        let (hub, name, port) = (self.hub(), self.namespace(node), port(node));
        ip(&["netns", "add", &name])?;
        ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "line", "netns", &name])?;
        ip(&["-n", &hub, "link", "set", &port, "master", "switch", "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/24", address(node)), "dev", "line"])?;
        ip(&["-n", &name, "link", "set", "line", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        limit(&name, "line", line.up)?;
        limit(&hub, &port, line.down)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// A command at a node, in `dir`, run by `prefix`: a program with arguments, or nothing.
    pub(super) fn command(
        &self,
        node: usize,
        dir: &Path,
        prefix: &[&str],
        program: impl AsRef<OsStr>,
    ) -> Command {
        let mut command = process::command(dir, "ip");
        command.args(["netns", "exec", &self.namespace(node)]).args(prefix).arg(program);
        command
    }

    /// Lets nothing pass from a node to another.
    pub(super) fn separate(&self, node: usize, other: usize) -> Result<()> {
        ip(&["-n", &self.namespace(node), "route", "add", "blackhole", &format!("{}/32", address(other))])
    }

    /// What a node has sent so far, all headers included.
    pub(super) fn sent_bytes(&self, node: usize) -> Result<u64> {
        // The switch receives what the node sends.
        self.counter(node, "rx_bytes")
    }

    /// What a node has received so far, all headers included.
    pub(super) fn received_bytes(&self, node: usize) -> Result<u64> {
        self.counter(node, "tx_bytes")
    }

    fn counter(&self, node: usize, name: &str) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/{name}", port(node));
        let mut cat = Command::new("ip");
        cat.args(["netns", "exec", &self.hub(), "cat", &path]);
        tool::output(&mut cat)?.trim().parse().with_context(|| format!("{path} is no number"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in (0..self.nodes).map(|node| self.namespace(node)).chain([self.hub()]) {
            // What was not made cannot be removed, and nobody is there to be told.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// A node's address.
pub(super) fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn port(node: usize) -> String {
    format!("port{node}")
}

fn ip(args: &[&str]) -> Result<()> {
    tool::run(Command::new("ip").args(args))
}

fn limit(namespace: &str, device: &str, bytes_per_s: u64) -> Result<()> {
    let (rate, burst) = (format!("{}bit", 8 * bytes_per_s), BURST_BYTES.to_string());
    let shape = ["root", "tbf", "rate", &rate, "burst", &burst, "latency", QUEUE];
    tool::run(Command::new("tc").args(["-n", namespace, "qdisc", "add", "dev", device]).args(shape))
}

/// Fails when what this needs is not there.
pub(super) fn require() -> Result<()> {
    fs::metadata("/proc/self/ns/net").context("this kernel has no network namespaces")?;
    for program in ["ip", "tc"] {
        if !tool::answers(Command::new(program).arg("-V")) {
            bail!("`{program}` is not installed; it comes with iproute2");
        }
    }
    Ok(())
}
