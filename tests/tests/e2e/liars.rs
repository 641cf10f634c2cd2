//! Attackers that say that they hold a model, as many as a fetch has places for, before an honest seeder comes.

use e2e::{Fetched, Home, Liars, Model, PIECE_BYTES, Process, Recipe, Seeder, TCP};

const ATTACKER: &str = env!("CARGO_BIN_EXE_attacker");
/// Sources of one fetch.
const PLACES: usize = 50;

/// A fetch whose places are all taken, by attackers and the hubs that it knows.
struct Surrounded {
    model: Model,
    home: Home,
    hubs: Vec<Hub>,
    liars: Liars,
    fetching: Process,
}

/// A node that holds nothing, and tells who does.
struct Hub {
    address: String,
    // Gone before its home.
    _process: Process,
    _home: Home,
}

impl Hub {
    async fn start() -> Self {
        let home = Home::new();
        let mut process = Process::start(home.command(["serve", "--listen", TCP]));
        Self { address: process.first_line().await, _process: process, _home: home }
    }
}

impl Surrounded {
    /// By attackers that are named.
    async fn by_named(attack: &str, count: usize) -> Self {
        let (model, hubs) = (Recipe::default().publish().await, vec![Hub::start().await]);
        let liars = Liars::start(ATTACKER, attack, &model, count, &[]).await;
        let named = liars.addresses().to_vec();
        Self::once_connected(model, hubs, liars, &named).await
    }

    /// By attackers that are found.
    async fn by_found(attack: &str) -> Self {
        // A hub tells of 32 at a time, and is asked less and less often: two tell of all of them at once.
        let (model, hubs) = (Recipe::default().publish().await, vec![Hub::start().await, Hub::start().await]);
        let addresses: Vec<_> = hubs.iter().map(|hub| hub.address.clone()).collect();
        let liars = Liars::start(ATTACKER, attack, &model, PLACES - hubs.len(), &addresses).await;
        Self::once_connected(model, hubs, liars, &[]).await
    }

    async fn once_connected(model: Model, hubs: Vec<Hub>, mut liars: Liars, named: &[String]) -> Self {
        let home = Home::new();
        let mut fetch = vec!["fetch", "--wait", "60s", "--manifest", &model.id];
        hubs.iter().for_each(|hub| fetch.extend(["--bootstrap", &hub.address]));
        named.iter().for_each(|liar| fetch.extend(["--peer", liar]));
        let fetching = home.start(fetch);
        liars.connected(liars.addresses().len()).await;
        Self { model, home, hubs, liars, fetching }
    }

    /// An honest seeder comes, of whom a hub tells: all of the model is from it. Says what came of the fetch, and of the
    /// attackers.
    async fn relieve(self) -> (Fetched, Liars, Model) {
        let Self { model, home, hubs, liars, fetching } = self;
        let hub = ["--bootstrap", &hubs[0].address];
        let seeder = Seeder::with(TCP, &model, &model.shards_but(&[]), &hub).await;
        let fetched = Fetched::of(fetching.outcome().await);
        home.assert_has(&model, &fetched);
        assert_eq!(fetched.source(seeder.id()).good_bytes, fetched.fetched_bytes, "{fetched:?}");
        (fetched, liars, model)
    }
}

/// Lies that are all alike cost two models at most, and a piece for each name.
async fn lie_alike(surrounded: Surrounded) {
    let (fetched, liars, model) = surrounded.relieve().await;
    let names_bytes = (liars.addresses().len() * PIECE_BYTES) as u64;
    assert!(fetched.wasted_bytes <= 2 * model.weights.len() as u64 + names_bytes, "{fetched:?}");
    let liars = liars.of(&fetched);
    assert!(liars.iter().all(|liar| liar.good_bytes == 0), "{fetched:?}");
    assert!(liars.iter().any(|liar| liar.bad_bytes > 0 && liar.banned), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn named_liars_lose_their_places_to_others() {
    lie_alike(Surrounded::by_named("equal-lies", PLACES).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn found_liars_lose_their_places_to_others() {
    let mut surrounded = Surrounded::by_found("equal-lies").await;
    // Not when somebody wants their places: nobody does yet.
    surrounded.liars.left(1).await;
    lie_alike(surrounded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_from_each_keeps_no_places() {
    let (fetched, liars, _) = Surrounded::by_found("one-byte-each").await.relieve().await;
    assert_eq!(fetched.wasted_bytes, 0, "{fetched:?}");
    for liar in liars.of(&fetched) {
        assert!(liar.bad_bytes == 0 && !liar.banned, "it may have a bad line: {liar:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_piece_from_each_keeps_no_places() {
    let (fetched, liars, _) = Surrounded::by_found("one-piece-each").await.relieve().await;
    for liar in liars.of(&fetched) {
        assert!(liar.bad_bytes <= PIECE_BYTES as u64 && liar.good_bytes == 0, "{liar:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_never_send_the_manifest_do_not_hold_the_fetch() {
    waste_time("silent-manifests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_send_the_manifest_byte_by_byte_do_not_hold_the_fetch() {
    waste_time("slow-manifests").await;
}

/// Those who are only slow, as many as the hub and the seeder leave places, are named before the seeder is known.
async fn waste_time(attack: &str) {
    let (fetched, liars, _) = Surrounded::by_named(attack, PLACES - 2).await.relieve().await;
    assert!(liars.of(&fetched).iter().all(|liar| liar.bad_bytes == 0 && !liar.banned), "{fetched:?}");
}
