//! Two watchers, for as long as one likes, of a chain that changes and is reorganised, through endpoints that fail and lie
//! by turns: `cargo xtask soak`.
//!
//! Never more of the five endpoints are bad at a time than a majority tolerates, but sometimes all are down. Only the two
//! traitors ever lie: a read may span several changes of mood, and would meet three liars if they took turns.

mod chronicle;
mod moods;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::{Chain, Home, Model, Mood, Outcome, Process, Recipe, Rpc, Seeder, TCP, Usage, made_up};
use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use chronicle::Chronicle;

/// What may be faulty of [`ENDPOINTS`] when a majority must agree.
const TOLERATED: usize = 2;
const ENDPOINTS: usize = 5;
/// What each read asks each endpoint at least once.
const EACH_READ: &str = "eth_getBlockByNumber";

/// What a watcher may use more at the end than after a third. Memory: a leak of 1 KiB a request would be more within a
/// minute. Descriptors: connections that are being made anew, to endpoints and peers; all are up when it is looked.
/// Threads: those for blocking calls stay for a while.
const MORE_BYTES: u64 = 4 << 20;
const MORE_DESCRIPTORS: u64 = 8;
const MORE_THREADS: u64 = 8;

/// Has glibc give freed memory back at once, in one place for all threads: else what is measured is what it keeps, some
/// MiB for each thread that has read an answer of that size.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];

/// What happens around the watchers.
struct World {
    rng: Rng,
    chain: Chain,
    chronicle: Chronicle,
    /// The first two are the traitors.
    endpoints: Vec<Rpc>,
    /// What the contract names, by turns.
    models: Vec<Model>,
    /// What only traitors name. Peers have it, so that it would be loaded.
    lie: Model,
    changes: u64,
    reorganisations: u64,
    /// What must not have been, told at the end: the figures help to understand it.
    complaints: BTreeSet<String>,
}

/// A watcher, and what it used after a third of the time and at the end.
struct Watcher {
    tag: &'static str,
    home: Home,
    process: Process,
    usage: Vec<Usage>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_ends_on_the_last_model_with_flat_memory_and_no_key_in_any_output() {
    let length = Duration::from_secs(variable("LOADER_SOAK_SECONDS").unwrap_or(10));
    let seed = variable("LOADER_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("soak of {} s, seed {seed}", length.as_secs());
    let mut world = World::new(seed).await;
    let (seeder, _folders) = world.seeder().await;
    world.change().await;
    let mut watchers = ["latest", "finalized"].map(|tag| Watcher::start(&world, tag, seeder.address()));
    for watcher in &mut watchers {
        watcher.process.last_answer(|_| true).await;
    }
    let start = Instant::now();
    for part in 1..=3 {
        while start.elapsed() < length * part / 3 {
            world.step().await;
            let any = world.rng.usize(..watchers.len());
            if world.rng.u8(..8) == 0 {
                watchers[any].check_status(&mut world).await;
            }
        }
        world.calm(&mut watchers).await;
        // Before, memory still grows for good reasons.
        watchers.iter_mut().for_each(|watcher| watcher.usage.push(watcher.process.usage()));
    }
    println!("{} changes, {} reorganisations", world.changes, world.reorganisations);
    println!(
        "| block tag | rounds | without quorum | models loaded | RssAnon at 1/3, end (KiB) | descriptors | threads | stderr (bytes) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for watcher in watchers {
        println!("{}", watcher.end(&mut world).await);
    }
    let complaints: Vec<_> = world.complaints.into_iter().collect();
    assert!(complaints.is_empty(), "seed {seed}:\n{}", complaints.join("\n"));
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

impl World {
    async fn new(seed: u64) -> Self {
        let chain = Chain::start().await;
        let mut models = Vec::new();
        for number in 0..4 {
            let mut weights = made_up(300_000);
            weights.iter_mut().for_each(|byte| *byte ^= number);
            models.push(Recipe::default().publish_weights(weights).await);
        }
        let lie = models.remove(0);
        let mut endpoints = Vec::new();
        for _ in 0..ENDPOINTS {
            endpoints.push(Rpc::honest(&chain).await);
        }
        let chronicle = Chronicle::new(chain.height().await);
        let rng = Rng::with_seed(seed);
        Self {
            rng,
            chain,
            chronicle,
            endpoints,
            models,
            lie,
            changes: 0,
            reorganisations: 0,
            complaints: BTreeSet::new(),
        }
    }

    /// A seeder of all models, the lie among them, and the folders that it serves.
    async fn seeder(&self) -> (Seeder, Vec<TempDir>) {
        let folders: Vec<_> = self.models.iter().map(|model| model.folder(&model.shards_but(&[]))).collect();
        let paths = folders.iter().map(|folder| folder.path().to_str().unwrap());
        let flags: Vec<_> = paths.flat_map(|path| ["--blob-dir", path]).collect();
        (Seeder::with(TCP, &self.lie, &self.lie.shards_but(&[]), &flags).await, folders)
    }

    /// Has the contract name another model than now.
    async fn change(&mut self) {
        let others: Vec<_> =
            self.models.iter().map(|model| &model.id).filter(|id| *id != self.chronicle.named()).collect();
        let next = self.rng.choice(others).unwrap().clone();
        self.chain.name(&next).await;
        self.chronicle.name(&next);
        self.changes += 1;
        self.mine(2).await;
    }

    async fn mine(&mut self, blocks: u64) {
        self.chain.mine(blocks).await;
        self.chronicle.grow(blocks);
    }

    /// Something happens to the chain or to the endpoints, and then a few reads.
    async fn step(&mut self) {
        match self.rng.u8(..10) {
            0 => self.change().await,
            1 => {
                // No deeper than what is not final.
                let blocks = self.rng.u64(1..=2);
                self.chain.reorganise(blocks).await;
                self.chronicle.reorganise(blocks);
                self.reorganisations += 1;
            }
            2 => {
                // A change that may be reorganised away.
                let next = self.rng.choice(&self.models).unwrap().id.clone();
                self.chain.name(&next).await;
                self.chronicle.name(&next);
                self.changes += 1;
            }
            3 => self.all_down(),
            4 => self.endpoints.iter().for_each(|endpoint| endpoint.set(Mood::Honest)),
            5 => {
                let blocks = self.rng.u64(1..=40);
                self.mine(blocks).await;
            }
            _ => self.some_bad(),
        }
        assert_eq!(self.chain.height().await, self.chronicle.height());
        let (of, reads) = (self.rng.usize(..ENDPOINTS), self.rng.u64(1..=12));
        let asked = self.endpoints[of].count(EACH_READ) + reads;
        // At most a second: it may be one that is not asked soon.
        let _ = timeout(Duration::from_secs(1), self.endpoints[of].asked(EACH_READ, asked)).await;
    }

    fn all_down(&mut self) {
        let mood = moods::down(&mut self.rng);
        self.endpoints.iter().for_each(|endpoint| endpoint.set(mood.clone()));
    }

    fn some_bad(&mut self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.set(Mood::Honest));
        let mut order: Vec<_> = (0..ENDPOINTS).collect();
        self.rng.shuffle(&mut order);
        let height = self.chronicle.height();
        for at in order.into_iter().take(TOLERATED) {
            let mood = match at < TOLERATED {
                true => moods::of_a_traitor(&mut self.rng, height, &self.lie.id),
                false => moods::of_the_unlucky(&mut self.rng),
            };
            self.endpoints[at].set(mood);
        }
    }

    /// All are honest, and all watchers come to the model that is named then.
    async fn calm(&mut self, watchers: &mut [Watcher]) {
        self.endpoints.iter().for_each(|endpoint| endpoint.set(Mood::Honest));
        self.change().await;
        for watcher in watchers {
            watcher.process.last_answer(|answer| answer["manifest"] == self.chronicle.named()).await;
            watcher.check_status(self).await;
        }
        // A few more reads, in which all connections that were closed are made again.
        let counts: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.count(EACH_READ)).collect();
        for (endpoint, count) in self.endpoints.iter().zip(counts) {
            endpoint.asked(EACH_READ, count + 8).await;
        }
    }

    /// Complains unless the contract named each model that was loaded, in the block in which it is said to have.
    fn compare(&mut self, tag: &str, outcome: &Outcome) {
        let mut last_block = 0;
        for answer in outcome.answers() {
            let block = answer["chain"]["block_number"].as_u64().unwrap();
            let model = answer["manifest"].as_str().unwrap();
            let is_true = match tag {
                "finalized" => self.chronicle.names(block, model),
                _ => self.chronicle.has_named(block, model),
            };
            if model == self.lie.id {
                self.complain(format!("at {tag} a lie was loaded: {answer}"));
            } else if !is_true {
                self.complain(format!("at {tag} what block {block} never named was loaded: {answer}"));
            } else if block < last_block {
                self.complain(format!("at {tag} it went back from block {last_block}: {answer}"));
            }
            last_block = block;
        }
    }

    fn complain_of_keys(&mut self, what: &str, text: &str) {
        let complaint = format!("{what} shows a key:");
        let is_known = self.complaints.iter().any(|known| known.starts_with(&complaint));
        let shown = || self.endpoints.iter().find_map(|endpoint| endpoint.keys().shown_in(text));
        if let Some(shown) = (!is_known).then(shown).flatten() {
            self.complain(format!("{complaint} {shown}"));
        }
    }

    /// Of many, the first few are enough.
    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < 20 {
            self.complaints.insert(complaint);
        }
    }
}

impl Watcher {
    fn start(world: &World, tag: &'static str, peer: &str) -> Self {
        let home = Home::new();
        let fixed =
            format!("--json -vvv watch --poll-interval 200ms --keep 2 --block-tag {tag} --peer {peer}");
        let mut command = home.command(fixed.split(' '));
        command.envs(ALLOCATOR).args(["--contract", &world.chain.contract()]);
        for endpoint in &world.endpoints {
            command.args(["--rpc-url", &endpoint.url_with_key()]);
            command.args(["--rpc-header", &endpoint.keys().header_flag()]);
        }
        let process = Process::start(command);
        Self { tag, home, process, usage: Vec::new() }
    }

    /// What `loader status` says, in which no key may be.
    async fn check_status(&self, world: &mut World) -> Value {
        let plain = self.home.plain(["-vvv", "status"]).await.expect(0);
        let json = self.home.run(["-vvv", "status"]).await.expect(0);
        for said in [&plain, &json] {
            world.complain_of_keys("`loader status`", &said.stdout);
            world.complain_of_keys("stderr of `loader status`", &said.stderr);
        }
        json.answer()
    }

    /// Ends it, complains of what was wrong, and gives its line of the table.
    async fn end(self, world: &mut World) -> String {
        let status = self.check_status(world).await;
        self.process.terminate().await;
        let outcome = self.process.outcome().await.expect(0);
        let (third, end) = (self.usage[0], self.usage[2]);
        let line = format!(
            "| {} | {} | {} | {} | {}, {} | {}, {} | {}, {} | {} |",
            self.tag,
            status["chain"]["rounds"],
            status["chain"]["rounds_without_quorum"],
            outcome.answers().len(),
            third.anonymous_bytes >> 10,
            end.anonymous_bytes >> 10,
            third.descriptors,
            end.descriptors,
            third.threads,
            end.threads,
            outcome.stderr.len(),
        );
        let tag = self.tag;
        world.compare(tag, &outcome);
        world.complain_of_keys(&format!("stdout at {tag}"), &outcome.stdout);
        world.complain_of_keys(&format!("stderr at {tag}"), &outcome.stderr);
        for (what, third, end, more) in [
            ("anonymous bytes", third.anonymous_bytes, end.anonymous_bytes, MORE_BYTES),
            ("descriptors", third.descriptors, end.descriptors, MORE_DESCRIPTORS),
            ("threads", third.threads, end.threads, MORE_THREADS),
        ] {
            if end > third + more {
                world.complain(format!("at {tag} {what} rose from {third} to {end}: {:?}", self.usage));
            }
        }
        line
    }
}
