//! The Kademlia DHT: provider records of manifests. The key of a record is the raw digest.
//!
//! Publicly reachable nodes are servers, and publish what they hold; others are clients. Provider records are not trusted:
//! providers are dialed, and what they send is verified.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, GetProvidersOk, QueryId, QueryResult};
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
use libp2p::{PeerId, StreamProtocol, identify};
use manifest::Digest;
use tokio::sync::mpsc;

use crate::config::DhtMode;
use crate::discovery::address::Scope;
use crate::discovery::record::{Contact, MAX_ADDRS};

/// Its name in stream negotiation.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/autonet/kad/1.0.0");
/// Providers remembered of one manifest. The default of 20 is too few for a swarm: later ones would be ignored.
const MAX_PROVIDERS: usize = 256;
/// Manifests whose providers are stored. With the above, that bounds the memory to some 50 MiB.
const MAX_KEYS: usize = 1024;
/// An answer names all providers, each with its addresses.
const MAX_PACKET_BYTES: usize = 256 << 10;
/// How often provider records are republished, and when they expire.
const REPUBLISH_EVERY: Duration = Duration::from_secs(3600);
const PROVIDER_TTL: Duration = Duration::from_secs(3 * 3600);
/// How long a search may take.
const SEARCH_TIME: Duration = Duration::from_secs(20);
/// Searches under way.
const MAX_SEARCHES: usize = 64;

pub(crate) type Kad = kad::Behaviour<MemoryStore>;

/// The behaviour, configured by the constants.
pub(crate) fn behaviour(local: PeerId, mode: DhtMode) -> Kad {
    let store = MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: MAX_PROVIDERS,
        max_provided_keys: MAX_KEYS,
    };
    let mut config = kad::Config::new(PROTOCOL);
    config
        .set_provider_publication_interval(Some(REPUBLISH_EVERY))
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_max_packet_size(MAX_PACKET_BYTES)
        .set_query_timeout(SEARCH_TIME);
    let mut kad = Kad::with_config(local, MemoryStore::with_config(local, store), config);
    if mode == DhtMode::Server {
        kad.set_mode(Some(kad::Mode::Server));
    }
    kad
}

/// Searches in the DHT, and the provider records that this node publishes.
#[derive(Debug, Default)]
pub(crate) struct Dht {
    searches: HashMap<QueryId, Search>,
    /// Manifests to provide, once this node is a server.
    held: HashSet<Digest>,
    provided: HashSet<Digest>,
    /// Servers were found since `provided` was published.
    has_new_servers: bool,
    /// Whether any server was known when `provided` was published.
    had_servers: bool,
}

#[derive(Debug)]
struct Search {
    found: mpsc::Sender<Contact>,
    reported: HashSet<PeerId>,
}

impl Dht {
    /// Searches for providers of the manifest; each is reported once. The channel closes with the search.
    pub(crate) fn search(&mut self, kad: &mut Kad, manifest: &Digest, found: mpsc::Sender<Contact>) {
        if self.searches.len() < MAX_SEARCHES {
            let query = kad.get_providers(key(manifest));
            self.searches.insert(query, Search { found, reported: HashSet::new() });
        }
    }

    /// From now on exactly these manifests are provided, up to `MAX_KEYS / 2`.
    pub(crate) fn set_provided(&mut self, held: HashSet<Digest>) {
        self.held = held;
    }

    /// Publishes the changes of what is provided. To be called when that, or the mode, may have changed.
    pub(crate) fn publish(&mut self, kad: &mut Kad) {
        let wanted: HashSet<Digest> = match kad.mode() {
            kad::Mode::Server => self.held.iter().take(MAX_KEYS / 2).copied().collect(),
            // This node is not reachable.
            kad::Mode::Client => HashSet::new(),
        };
        for gone in self.provided.difference(&wanted) {
            kad.stop_providing(&key(gone));
        }
        self.had_servers = kad.kbuckets().any(|bucket| bucket.num_entries() > 0);
        let is_again = std::mem::take(&mut self.has_new_servers);
        for new in wanted.iter().filter(|held| is_again || !self.provided.contains(*held)) {
            if let Err(error) = kad.start_providing(key(new)) {
                tracing::debug!(manifest = %new, %error, "is not provided");
            }
        }
        self.provided = wanted;
    }

    /// A peer has identified itself: DHT servers are added to the routing table, at addresses whose scope includes that of
    /// the connection.
    pub(crate) fn on_identified(&self, kad: &mut Kad, peer: PeerId, info: &identify::Info, scope: Scope) {
        if !info.protocols.contains(&PROTOCOL) {
            return;
        }
        let contact = Contact::new(peer, &info.listen_addrs).within(scope);
        for addr in contact.addrs.into_iter().take(MAX_ADDRS) {
            kad.add_address(&peer, addr);
        }
    }

    /// `scope`: the widest scope that an answering peer may be in.
    pub(crate) fn on_event(&mut self, kad: &mut Kad, event: kad::Event, scope: Scope) {
        match event {
            kad::Event::ModeChanged { new_mode } => {
                tracing::info!(mode = %new_mode, "part in the DHT");
                self.publish(kad);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                self.has_new_servers = true;
                // Later ones are told by the next call of `publish`.
                if !self.had_servers {
                    self.publish(kad);
                }
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result
                    && let Some(search) = self.searches.get_mut(&id)
                {
                    search.report(kad, providers, scope);
                }
                if step.last {
                    self.searches.remove(&id);
                }
            }
            other => tracing::trace!(event = ?other, "DHT"),
        }
        // A search whose receiver is gone is cancelled.
        self.searches.retain(|id, search| {
            let is_wanted = !search.found.is_closed();
            if !is_wanted && let Some(mut query) = kad.query_mut(id) {
                query.finish();
            }
            is_wanted
        });
    }
}

impl Search {
    fn report(&mut self, kad: &mut Kad, providers: HashSet<PeerId>, scope: Scope) {
        for peer in providers {
            if !self.reported.insert(peer) {
                continue;
            }
            // The only way to get the addresses from the answers: they are forgotten with the query.
            let none = ConnectionId::new_unchecked(0);
            let addrs = kad.handle_pending_outbound_connection(none, Some(peer), &[], Endpoint::Dialer);
            let contact = Contact::new(peer, &addrs.unwrap_or_default()).within(scope);
            // A full queue has enough of them.
            let _ = self.found.try_send(contact);
        }
    }
}

fn key(manifest: &Digest) -> kad::RecordKey {
    kad::RecordKey::new(manifest.as_bytes())
}
