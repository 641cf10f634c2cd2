//! Attacks on those who fetch a model, by peers that say that they hold all of it.
//!
//! Each prints first where it is found, one a line. Then comes `told` for each that a hub knows, `connected` for each that
//! somebody else connects to, and `left` when the last of these connections is gone. Each HUB is a node that tells others of
//! its share of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, future, io};

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, Swarm, identify};
use libp2p_stream::Control;
use serde_json::Value;

use crate::places::{RANGES, unhex};
use crate::victims::listen;
use crate::wire::Framing;

/// The types of requests.
const GET: u8 = 1;
const HAVE: u8 = 2;
const PEERS: u8 = 3;
/// An answer that has what was asked for begins with this, and one that has not is this.
const HELD: u8 = 0;
const NOT_FOUND: [u8; 1] = [1];
/// Of an answer to GET: its status, and the sizes of the blob and of what was asked for.
const ANSWER_HEAD_BYTES: usize = 1 + 8 + 4;
/// The same in a frame, which begins with its length.
const FRAME_HEAD_BYTES: usize = 4 + ANSWER_HEAD_BYTES;
/// Between two bytes of a slow answer.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy)]
enum Attack {
    /// All send the same bytes for a piece of a shard, of which one bit is wrong.
    EqualLies,
    /// A piece of a shard ends after its first byte, and so does the stream.
    OneByteEach,
    /// Each sends one wrong piece, and then nothing.
    OnePieceEach,
    /// Nothing is answered.
    SilentManifests,
    /// Bytes are right, and come one now and then.
    SlowManifests,
}

pub(crate) async fn run(attack: &str, manifest: &str, from: IpAddr, words: &[String]) {
    let [folder, count, hubs @ ..] = words else { panic!("{words:?}") };
    let hubs: Vec<Multiaddr> = hubs.iter().map(|hub| hub.parse().unwrap()).collect();
    let attack = match attack {
        "equal-lies" => Attack::EqualLies,
        "one-byte-each" => Attack::OneByteEach,
        "one-piece-each" => Attack::OnePieceEach,
        "silent-manifests" => Attack::SilentManifests,
        _ => Attack::SlowManifests,
    };
    let model = Arc::new(Model::read(folder.as_ref(), unhex(manifest)));
    for number in 0..count.parse().unwrap() {
        let mut swarm = crate::swarm(|key| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new_with_signed_peer_record(
                "/attacker".to_owned(),
                key,
            )),
            streams: libp2p_stream::Behaviour::new(),
        });
        listen(&mut swarm, from).await;
        let liar = Liar { attack, model: Arc::clone(&model), has_lied: AtomicBool::new(false) };
        let hub = hubs.get(number % hubs.len().max(1)).cloned();
        tokio::spawn(be(swarm, Arc::new(liar), hub));
    }
    future::pending().await
}

/// What is told of, and lied about.
struct Model {
    manifest: Vec<u8>,
    shards: usize,
    blobs: HashMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn read(folder: &Path, manifest: Vec<u8>) -> Self {
        let blob = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (unhex(entry.file_name().to_str().unwrap()), fs::read(entry.path()).unwrap())
        };
        let blobs: HashMap<_, _> = fs::read_dir(folder).unwrap().map(blob).collect();
        let json: Value = serde_json::from_slice(&blobs[&manifest]).unwrap();
        let shards = json["shards"].as_array().unwrap().len();
        Self { manifest, shards, blobs }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// One peer.
async fn be(mut swarm: Swarm<Behaviour>, liar: Arc<Liar>, hub: Option<Multiaddr>) {
    let mut control = swarm.behaviour().streams.new_control();
    let mut asked = control.accept(RANGES).unwrap();
    let hub_peer = hub.as_ref().and_then(|hub| match hub.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    });
    hub.into_iter().for_each(|hub| swarm.dial(hub).unwrap());
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if Some(peer_id) == hub_peer => {
                    tokio::spawn(tell(control.clone(), peer_id, liar.model.manifest.clone()));
                }
                SwarmEvent::ConnectionEstablished { num_established, .. } if num_established.get() == 1 => {
                    println!("connected");
                }
                SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } if Some(peer_id) != hub_peer => {
                    println!("left");
                }
                _ => {}
            },
            Some((_, mut stream)) = asked.next() => {
                let liar = Arc::clone(&liar);
                tokio::spawn(async move { while liar.answer(&mut stream).await.is_ok() {} });
            }
        }
    }
}

/// Whoever asks a node who has a model is somebody who has some of it.
async fn tell(mut control: Control, hub: PeerId, manifest: Vec<u8>) {
    let mut stream = control.open_stream(hub, RANGES).await.unwrap();
    let request = [vec![PEERS], manifest].concat();
    Framing::Fixed.write(&mut stream, &request).await.unwrap();
    Framing::Fixed.read(&mut stream).await.unwrap();
    println!("told");
}

struct Liar {
    attack: Attack,
    model: Arc<Model>,
    has_lied: AtomicBool,
}

impl Liar {
    /// Answers a request, or does not.
    async fn answer(&self, stream: &mut Stream) -> io::Result<()> {
        let request = Framing::Fixed.read(stream).await?;
        // What is asked for by a manifest is a piece of a shard.
        let is_piece = request[0] == GET && request[1..33] != [0; 32];
        let mut answer = self.truth(&request);
        match self.attack {
            Attack::SilentManifests => future::pending().await,
            Attack::SlowManifests if request[0] == GET => trickle(stream, &answer).await,
            Attack::OneByteEach if is_piece => {
                stream.write_all(&frame(&answer)[..=FRAME_HEAD_BYTES]).await?;
                stream.close().await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Attack::OnePieceEach if is_piece && self.has_lied.swap(true, Ordering::Relaxed) => {
                future::pending().await
            }
            Attack::EqualLies | Attack::OnePieceEach if is_piece => {
                // The first one of the piece.
                answer[ANSWER_HEAD_BYTES] ^= 1;
                Framing::Fixed.write(stream, &answer).await
            }
            _ => Framing::Fixed.write(stream, &answer).await,
        }
    }

    /// What an honest peer with all of the model would answer.
    fn truth(&self, request: &[u8]) -> Vec<u8> {
        match request[0] {
            GET => {
                let Some(blob) = self.model.blobs.get(&request[33..65]) else { return NOT_FOUND.to_vec() };
                let offset = u64::from_be_bytes(request[65..73].try_into().unwrap());
                let length = u32::from_be_bytes(request[73..77].try_into().unwrap());
                let start = usize::try_from(offset).unwrap();
                let mut answer = vec![HELD];
                answer.extend((blob.len() as u64).to_be_bytes());
                answer.extend(length.to_be_bytes());
                answer.extend(&blob[start..start + length as usize]);
                answer
            }
            HAVE => {
                let mut answer = vec![HELD];
                answer.extend(1u64.to_be_bytes());
                // In full, and all pieces of each shard.
                answer.push(0);
                answer.extend(u32::MAX.to_be_bytes().repeat(self.model.shards));
                answer
            }
            _ => NOT_FOUND.to_vec(),
        }
    }
}

/// Writes an answer byte by byte, once its first one is there.
async fn trickle(stream: &mut Stream, answer: &[u8]) -> io::Result<()> {
    let frame = frame(answer);
    let (begin, rest) = frame.split_at((FRAME_HEAD_BYTES + 1).min(frame.len()));
    stream.write_all(begin).await?;
    stream.flush().await?;
    for byte in rest {
        tokio::time::sleep(PAUSE).await;
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The bytes of a frame, for those who do not send it as a whole.
fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}
