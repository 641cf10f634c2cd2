//! Scripted news and loads, in virtual time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chain_reader::{BlockHash, ChainError, Price};
use futures::FutureExt as _;
use loader::encode::{Input, Options, publish};
use loader::{LoadError, Report};
use store::{Cache, Model};
use tokio::sync::mpsc;

use super::*;

/// What comes of the loads of a model, in turn; of one that is not listed, nothing.
type Script = Arc<Mutex<HashMap<Digest, Vec<Result<Model, NodeError>>>>>;

struct Stage {
    cache: Cache,
    _dir: tempfile::TempDir,
    news: mpsc::Sender<FollowEvent>,
    script: Script,
    /// Loads that were begun.
    begun: Arc<Mutex<Vec<Digest>>>,
    watch: Watch,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let (news, heard) = mpsc::channel(16);
        let heard =
            futures::stream::unfold(heard, async |mut heard| Some((heard.recv().await?, heard))).boxed();
        let (script, begun) = (Script::default(), Arc::<Mutex<Vec<Digest>>>::default());
        let load = {
            let (script, begun) = (Arc::clone(&script), Arc::clone(&begun));
            move |named: MatureModel| {
                begun.lock().unwrap().push(named.manifest);
                let mut script = script.lock().unwrap();
                let results = script.get_mut(&named.manifest).filter(|results| !results.is_empty());
                match results.map(|results| results.remove(0)) {
                    Some(result) => {
                        std::future::ready(result.map(|model| Loaded { model, report: Report::default() }))
                            .boxed()
                    }
                    None => std::future::pending().boxed(),
                }
            }
        };
        Self { cache, _dir: dir, news, script, begun, watch: Watch::new(heard, load) }
    }

    /// A model that can be loaded so often after these failures.
    fn model(&self, seed: u8, failures: Vec<NodeError>) -> Digest {
        let path = self.cache.dir().join(format!("weights-{seed}"));
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), &[seed; 1000]).unwrap();
        let model = publish(&self.cache, &Input::File(path), &Options::default(), &|_, _| ()).unwrap().model;
        let digest = *model.digest();
        let results = failures.into_iter().map(Err).chain([Ok(model)]).collect();
        self.script.lock().unwrap().insert(digest, results);
        digest
    }

    fn name(&self, manifest: Digest, block_number: u64) {
        let named = MatureModel {
            manifest,
            price: Price::default(),
            chain_id: 1,
            block_number,
            block_hash: BlockHash::default(),
            block_timestamp: 0,
        };
        self.news.try_send(FollowEvent::Model(named)).unwrap();
    }

    /// The model that is ready next.
    async fn ready(&mut self) -> Digest {
        match self.watch.next().await.unwrap() {
            Update::Ready { named, loaded } => {
                assert_eq!(named.manifest, *loaded.model.digest());
                named.manifest
            }
            other => panic!("{other:?}"),
        }
    }

    async fn not_loaded(&mut self) -> (Digest, Option<Duration>) {
        match self.watch.next().await.unwrap() {
            Update::NotLoaded { named, retry_after, .. } => (named.manifest, retry_after),
            other => panic!("{other:?}"),
        }
    }

    /// Fails the test unless nothing more happens, however long one waits.
    async fn quiet(&mut self) {
        let waited = tokio::time::timeout(Duration::from_secs(100_000), self.watch.next()).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    fn begun(&self) -> Vec<Digest> {
        std::mem::take(&mut self.begun.lock().unwrap())
    }
}

fn nobody(digest: Digest) -> NodeError {
    LoadError::ManifestUnavailable { digest, asked: Vec::new() }.into()
}

fn invalid(digest: Digest) -> NodeError {
    LoadError::DirtyPadding { digest, shard: 0 }.into()
}

#[tokio::test(start_paused = true)]
async fn each_new_model_comes_once() {
    let mut stage = Stage::new();
    let (a, b) = (stage.model(1, Vec::new()), stage.model(2, Vec::new()));
    stage.name(a, 1);
    stage.name(a, 2);
    assert_eq!(stage.ready().await, a);
    stage.name(a, 3);
    stage.quiet().await;
    stage.name(b, 4);
    assert_eq!(stage.ready().await, b);
    assert_eq!(stage.begun(), [a, b]);
    let again = stage.model(1, Vec::new());
    stage.name(again, 5);
    assert_eq!(stage.ready().await, a, "an older model is a change like any other");
}

#[tokio::test(start_paused = true)]
async fn a_newer_model_ends_the_load_of_an_older_one() {
    let mut stage = Stage::new();
    let (never, b) = (Digest::of(b"never loaded"), stage.model(2, Vec::new()));
    stage.name(never, 1);
    stage.quiet().await;
    stage.name(b, 2);
    assert_eq!(stage.ready().await, b);
    assert_eq!(stage.begun(), [never, b]);
    stage.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_return_to_the_loaded_model_ends_the_load_of_another() {
    let mut stage = Stage::new();
    let (a, never) = (stage.model(1, Vec::new()), Digest::of(b"never loaded"));
    stage.name(a, 1);
    assert_eq!(stage.ready().await, a);
    stage.name(never, 2);
    stage.quiet().await;
    stage.name(a, 3);
    stage.quiet().await;
    assert!(stage.watch.wanted.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_is_tried_again_and_what_is_not_valid_is_not() {
    let mut stage = Stage::new();
    let digest = Digest::of(b"any");
    let a = stage.model(1, vec![nobody(digest), nobody(digest), invalid(digest)]);
    stage.name(a, 1);
    assert_eq!(stage.not_loaded().await, (a, Some(FIRST_PAUSE)));
    assert_eq!(stage.not_loaded().await, (a, Some(2 * FIRST_PAUSE)));
    assert_eq!(stage.not_loaded().await, (a, None));
    stage.quiet().await;
    assert_eq!(stage.begun(), [a, a, a]);
    let b = stage.model(2, Vec::new());
    stage.name(b, 2);
    assert_eq!(stage.ready().await, b);
}

#[tokio::test(start_paused = true)]
async fn giving_up_a_wait_loses_nothing_and_trouble_is_told() {
    let mut stage = Stage::new();
    let a = stage.model(1, Vec::new());
    for _ in 0..3 {
        assert!(stage.watch.next().now_or_never().is_none());
    }
    let trouble = Trouble { error: ChainError::NoEndpoint, keeping: None };
    stage.news.try_send(FollowEvent::Trouble(trouble)).unwrap();
    stage.news.try_send(FollowEvent::Recovered).unwrap();
    stage.name(a, 1);
    assert!(matches!(stage.watch.next().await.unwrap(), Update::Trouble(_)));
    assert!(matches!(stage.watch.next().await.unwrap(), Update::Recovered));
    assert_eq!(stage.ready().await, a);
}

#[test]
fn pauses_end_at_two_minutes() {
    assert_eq!([0, 1, 5, 6, 1000].map(|failures| pause(failures).as_secs()), [2, 4, 64, 120, 120]);
}
