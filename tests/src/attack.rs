//! Attackers, in processes of their own, and those who come while they attack.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::Process;

/// An attack on a node. Dropping it ends it.
#[derive(Debug)]
pub struct Attack {
    _process: Process,
}

impl Attack {
    /// Starts the attack with this name from this IP address, and waits until it is under way. `program` is the attacker,
    /// `words` what it needs to know besides.
    ///
    /// # Panics
    /// When it does not begin.
    pub async fn start(program: &str, name: &str, target: &str, from: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args([name, target, from]).args(words);
        let mut process = Process::start(command);
        assert_eq!(process.first_line().await, "attacking");
        Self { _process: process }
    }
}

/// A way to a node on which everything comes from another address of this machine. Dropping it ends it.
#[derive(Debug)]
pub struct Way {
    address: String,
    task: JoinHandle<()>,
}

impl Way {
    /// The way to the node at `target`, an address of TCP with a peer id, from this IP address.
    ///
    /// # Panics
    /// When the addresses are others.
    pub async fn from(from: &str, target: &str) -> Self {
        let words: Vec<&str> = target.split('/').collect();
        let ["", "ip4", ip, "tcp", port, "p2p", peer] = words[..] else { panic!("{target}") };
        let target: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        let from: SocketAddr = format!("{from}:0").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", listener.local_addr().unwrap().port());
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(from)?;
                    let mut far = socket.connect(target).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self { address, task }
    }

    /// Where it begins.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}
