//! Networks of the test's own, in which one machine has addresses that it has nowhere else. They need root, util-linux and a C
//! compiler.

use std::ffi::OsStr;

use tokio::process::Command;

use crate::{Process, confined, tools};

/// A network that nobody else is in, and nothing leaves. Dropping it ends it.
#[derive(Debug)]
pub struct Network {
    process: Process,
}

impl Network {
    /// Makes one in which this machine has these IPv4 addresses, besides those of loopback.
    ///
    /// # Panics
    /// When that fails, as it does without root and a C compiler.
    pub async fn with(addresses: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("net");
        tools::compile("net.c", &[], &helper).await;
        let mut command = Command::new(helper);
        command.args(addresses);
        let mut process = Process::start(command);
        assert_eq!(process.first_line().await, "ready");
        Self { process }
    }

    /// The same command in this network.
    ///
    /// # Panics
    /// When the network is gone.
    pub fn inside(&self, command: &Command) -> Command {
        let namespace = format!("--net=/proc/{}/ns/net", self.process.id());
        confined::behind("nsenter", [OsStr::new(&namespace)], command)
    }
}
