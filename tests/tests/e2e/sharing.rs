//! Nodes that serve while they fetch, in the test's own process: their sockets are real.

use std::sync::Arc;

use e2e::{Home, Model, PIECE_BYTES, Peer, Recipe, TCP, Tree, soon};
use futures::StreamExt as _;
use loader::{Event, FetchOptions, Observer};
use manifest::{ByteRange, Digest};
use node::{Loaded, Node, NodeError};
use p2p_blob::{Client, Config, FetchError, GetRequest, Identity, Session, Versions, read_blob};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node that fetches a model, and what it has of it so far.
struct Fetcher {
    node: Arc<Node>,
    address: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    fetched_bytes: watch::Sender<u64>,
}

impl Observer for Seen {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::PieceFetched { bytes, .. } = event {
            self.fetched_bytes.send_modify(|sum| *sum += bytes);
        }
    }
}

impl Fetcher {
    async fn start(home: &Home, peers: &[&str]) -> Self {
        let config = node::Config::new(home.cache(""))
            .with_mdns(false)
            .with_listen(vec![TCP.parse().unwrap()])
            .with_peers(peers.iter().map(|peer| peer.parse().unwrap()).collect())
            .with_fetch(FetchOptions::default().with_durable(false));
        let node = Arc::new(Node::start(config).await.unwrap());
        let addresses = node.listen_addrs().filter_map(async |addresses| addresses.into_iter().next());
        let mut addresses = std::pin::pin!(addresses);
        let address = soon("an address", addresses.next()).await.unwrap().to_string();
        Self { node, address, seen: Arc::default() }
    }

    fn fetch(&self, model: &Model) -> JoinHandle<Result<Loaded, NodeError>> {
        let (node, seen, digest) = (Arc::clone(&self.node), Arc::clone(&self.seen), model.digest);
        tokio::spawn(async move { node.load(digest, &*seen).await })
    }

    /// Waits until it has so many bytes of pieces.
    async fn has(&self, bytes: u64) {
        soon("pieces", self.seen.fetched_bytes.subscribe().wait_for(|sum| *sum >= bytes)).await.unwrap();
    }

    async fn stop(self, fetching: JoinHandle<Result<Loaded, NodeError>>) {
        fetching.abort();
        soon("the end of the fetch", fetching).await.unwrap_err();
        let node = Arc::into_inner(self.node).unwrap();
        soon("the end of the node", node.shutdown()).await;
    }
}

/// Waits for the end of a fetch and compares the weights.
async fn loaded(model: &Model, fetching: JoinHandle<Result<Loaded, NodeError>>) -> Loaded {
    let loaded = soon("the end of a fetch", fetching).await.unwrap().unwrap();
    let files = loaded.model.files().map(|file| loaded.model.file(file.path).unwrap().unwrap());
    let bytes: Vec<u8> = files.flat_map(|file| file.as_ref().to_vec()).collect();
    assert!(bytes == model.weights, "other bytes than were published");
    loaded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_from_another_what_that_one_has_just_got() {
    // Parity that was fetched in the place of late pieces is not offered.
    share_while_fetching(Recipe { parity: 0, ..Recipe::default() }.publish().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_from_another_what_that_one_has_just_got_of_a_folder() {
    let small =
        [("config.json", 10_000), ("sub/a.bin", 90_000), ("sub/b.bin", 900_000), ("z.bin", 1_000_000)];
    share_while_fetching(Tree::of_sizes(small).publish(&["--parity", "0", "--layout", "rows"]).await).await;
}

async fn share_while_fetching(model: Model) {
    let total_bytes = model.weights.len() as u64;
    let seeder = Peer::start(model.conduct().stopping_after(total_bytes / 4 * 3)).await;
    let homes = [Home::new(), Home::new()];
    let first = Fetcher::start(&homes[0], &[seeder.address()]).await;
    let first_fetching = first.fetch(&model);
    first.has(total_bytes / 4).await;
    let second = Fetcher::start(&homes[1], &[&first.address]).await;
    let second_fetching = second.fetch(&model);
    second.has(total_bytes / 4).await;
    assert!(
        !first_fetching.is_finished() && !second_fetching.is_finished(),
        "a quarter of it is nowhere yet"
    );
    seeder.gate().open();
    loaded(&model, first_fetching).await;
    let Loaded { report, .. } = loaded(&model, second_fetching).await;
    assert_eq!((report.fetched_bytes, report.wasted_bytes), (total_bytes, 0), "{report:?}");
    assert_eq!(seeder.gate().passed_bytes(), total_bytes, "one copy fed both");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_is_offered_before_anything_is_fetched() {
    // Parity that was fetched in the place of late pieces is not offered.
    let model = Recipe { parity: 0, ..Recipe::default() }.publish().await;
    let total_bytes = model.weights.len() as u64;
    let seeder = Peer::start(model.conduct().stopping_after(total_bytes / 4 * 3)).await;
    let homes = [Home::new(), Home::new()];
    let first = Fetcher::start(&homes[0], &[seeder.address()]).await;
    let fetching = first.fetch(&model);
    first.has(total_bytes / 4).await;
    first.stop(fetching).await;

    // The seeder sends nothing more.
    let first = Fetcher::start(&homes[0], &[seeder.address()]).await;
    let first_fetching = first.fetch(&model);
    let second = Fetcher::start(&homes[1], &[&first.address]).await;
    let second_fetching = second.fetch(&model);
    second.has(total_bytes / 4).await;
    seeder.gate().open();
    let Loaded { report, .. } = loaded(&model, first_fetching).await;
    assert!(report.resumed_bytes >= total_bytes / 4, "{report:?}");
    loaded(&model, second_fetching).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_served_under_their_manifest_only_and_proven_shards_to_everybody() {
    let model = Recipe::default().publish().await;
    let [part, whole] = [model.shard(0), model.shard(1)];
    let of = |shard| {
        let mut conduct = model.conduct();
        conduct.blobs.retain(|blob, _| *blob == shard || !model.shards().any(|shard| shard == *blob));
        conduct
    };
    // Three of four pieces pass, whenever they are asked for, and the one that is asked for last does not.
    let seeder = Peer::start(of(part).stopping_after_pieces(3)).await;
    let other = Peer::start(of(whole)).await;
    let home = Home::new();
    let first = Fetcher::start(&home, &[seeder.address(), other.address()]).await;
    let fetching = first.fetch(&model);

    let client = |versions| {
        let config = Config::new(Identity::ephemeral()).with_versions(versions);
        p2p_blob::start(config, Arc::new(Nothing)).unwrap().0
    };
    let Session::Ranges(ranges) = open(&client(Versions::Both), &first.address).await else {
        panic!("it speaks 2.0.0")
    };
    let have = soon("a whole shard and a piece", async {
        loop {
            let have = ranges.have(model.digest, 0, [4; 14].into()).await.unwrap();
            if let Some(have) = have
                && let [first, second, ..] = have.change.shards()
                && second.is_all()
                && !first.is_empty()
            {
                return have;
            }
            tokio::task::yield_now().await;
        }
    });
    let have = have.await;
    assert!(have.change.shards()[2].is_empty());
    let held: Vec<u32> = have.change.shards()[0].iter().collect();
    assert!(held.len() < 4);
    let start = held[0] as usize * PIECE_BYTES;
    let end = (start + PIECE_BYTES).min(200_000);
    let get = |manifest, blob, start: usize, end: usize| {
        let range = ByteRange::new(start as u64, end as u64);
        let request = GetRequest { manifest, blob, blob_size_bytes: None, range };
        ranges.get(request, vec![0; end - start])
    };
    let bytes = get(Some(model.digest), part, start, end).await.unwrap();
    assert!(bytes == model.blobs[&part][start..end]);
    let others = [None, Some(Digest::of(b"another manifest"))];
    for manifest in others {
        let error = get(manifest, part, start, end).await.unwrap_err();
        assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    }
    let error = get(Some(model.digest), part, 0, 200_000).await.unwrap_err();
    assert!(matches!(error, FetchError::NotHeld { .. }), "{error}");
    for manifest in others {
        let bytes = get(manifest, whole, 100, 200).await.unwrap();
        assert!(bytes == model.blobs[&whole][100..200]);
    }

    let old = open(&client(Versions::OnlyBlobs), &first.address).await;
    assert_eq!(read_blob(&old, part, 1 << 20).await.unwrap(), None, "1.0.0 knows whole blobs only");
    for blob in [whole, model.digest, model.manifest.pieces().unwrap().index] {
        let bytes = read_blob(&old, blob, 1 << 20).await.unwrap().unwrap();
        assert_eq!(Digest::of(&bytes), blob);
    }
    seeder.gate().open();
    first.stop(fetching).await;
}

async fn open(client: &Client, address: &str) -> Session {
    let peer = soon("a connection", client.connect(address.parse().unwrap())).await.unwrap();
    soon("a session", client.open(peer)).await.unwrap()
}

/// Serves nothing.
struct Nothing;

impl p2p_blob::Store for Nothing {
    fn open(&self, _: Option<&Digest>, _: &Digest) -> std::io::Result<Option<Arc<dyn p2p_blob::Blob>>> {
        Ok(None)
    }

    fn have(&self, _: &Digest, _: u64) -> std::io::Result<Option<manifest::Have>> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_nodes_at_once_take_little_more_than_one_copy_from_the_seeder() {
    const NODES: usize = 10;
    let model = Recipe::of_size(8 << 20).publish().await;
    let (folder, home) = (model.folder(&model.shards_but(&[])), Home::new());
    let folder = folder.path().display().to_string();
    // One copy takes it four seconds, ten would take forty.
    let mut seeder = home.start(["serve", "--listen", TCP, "--upload-limit", "2MiB", "--blob-dir", &folder]);
    let listening: serde_json::Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let address = listening["address"].as_str().unwrap();
    let homes: Vec<Home> = (0..NODES).map(|_| Home::new()).collect();
    // A seeder with so little upload is busy for seconds at a time.
    let fetch =
        |home: &Home| home.start(["fetch", "--wait", "30s", "--manifest", &model.id, "--peer", address]);
    let fetches: Vec<_> = homes.iter().map(fetch).collect();
    for (home, fetching) in homes.iter().zip(fetches) {
        let fetched = e2e::Fetched::of(fetching.outcome().await);
        home.assert_has(&model, &fetched);
    }
    let status = home.run(["status"]).await.answer();
    let sent_bytes = status["uploaded_bytes"].as_u64().unwrap();
    let copies = sent_bytes as f64 / model.weights.len() as f64;
    assert!((1.0..=3.0).contains(&copies), "the seeder sent {copies:.2} times the model");
}
