//! Models as people have them, opened by the libraries that people open them with.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use e2e::{Chain, Home, Model, Peer, Seeder, TCP, Tree, real_inputs};
use serde_json::Value;

async fn publish(home: &Home, folder: &Path, layout: &str) -> Value {
    let fixed = ["publish", "--model-kind", "simplenet", "--layout", layout];
    home.run(fixed.map(OsStr::new).into_iter().chain([folder.as_os_str()])).await.answer()
}

/// Publishes a folder and fetches it elsewhere: the home of the fetched one, and what a runtime opens.
async fn carried(folder: &Path, layout: &str) -> (Home, PathBuf) {
    let (publisher, fetcher) = (Home::new(), Home::new());
    let published = publish(&publisher, folder, layout).await;
    let mut seeder = publisher.start(["serve", "--listen", TCP]);
    let listening: Value = serde_json::from_str(&seeder.first_line().await).unwrap();
    let (id, address) = (published["manifest"].as_str().unwrap(), listening["address"].as_str().unwrap());
    let fetched = fetcher.run(["fetch", "--manifest", id, "--peer", address]).await.answer();
    (fetcher, PathBuf::from(fetched["path"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_with_an_index_a_split_gguf_and_onnx_with_external_data_open_as_they_were() {
    for kind in ["parts", "gguf", "onnx"] {
        let home = Home::new();
        let folder = home.path("folder");
        let [make, check] = ["make", "check"].map(|what| format!("{what}-{kind}"));
        real_inputs(&[make.as_ref(), folder.as_ref()]).await.expect(0);
        for layout in ["files", "rows"] {
            let (_home, path) = carried(&folder, layout).await;
            real_inputs(&[check.as_ref(), path.as_ref()]).await.expect(0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_small_files_arrive() {
    let home = Home::new();
    let (folder, count, size) = (home.path("folder"), OsStr::new("20000"), ["--size", "700"].map(OsStr::new));
    real_inputs(&["make-many".as_ref(), folder.as_ref(), count, size[0], size[1]]).await.expect(0);
    let (home, path) = carried(&folder, "auto").await;
    real_inputs(&["check-many".as_ref(), path.as_ref(), count, size[0], size[1]]).await.expect(0);
    assert_eq!(home.run(["verify"]).await.answer()["good"], true);
}

/// The whole way: a contract names a real model, two honest peers and a liar have it, and what arrives is run.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_sentence_model_is_named_by_a_contract_fetched_and_run() {
    let found = real_inputs(&["minilm-path".as_ref()]).await.expect(0).stdout;
    let (publisher, home, chain) = (Home::new(), Home::new(), Chain::start().await);
    let published = publish(&publisher, Path::new(found.trim()), "auto").await;
    let id = published["manifest"].as_str().unwrap();
    // What tools keep beside a model is not part of it.
    let tree = Tree::read(Path::new(published["path"].as_str().unwrap()));
    let model = Model::of_folder(&publisher, id, &tree);
    let all = model.shards_but(&[]);
    let (first, second) = (Seeder::start(&model, &all).await, Seeder::start(&model, &all).await);
    let liar = Peer::start(model.conduct().lying_about(model.shards())).await;
    chain.set(id).await;
    let peers = [first.address(), second.address(), liar.address()];
    let fetch = ["fetch", "--block-tag", "latest"].map(str::to_owned).into_iter().chain(chain.flags());
    let fetched =
        home.run(fetch.chain(peers.iter().flat_map(|peer| ["--peer", peer]).map(str::to_owned))).await;
    let fetched = e2e::Fetched::of(fetched);
    home.assert_has(&model, &fetched);
    real_inputs(&["open-minilm".as_ref(), fetched.path.as_ref()]).await.expect(0);
    real_inputs(&["check-embed".as_ref(), fetched.path.as_ref()]).await.expect(0);
}
