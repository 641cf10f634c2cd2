//! The demo.

use e2e::{Home, Process, anvil, demo};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_the_whole_story() {
    let home = Home::new();
    let mut command = Command::new(demo());
    command.args(["--size", "4MiB", "--anvil"]).arg(anvil()).env("TMPDIR", home.path(""));
    let story = Process::start(command).outcome().await.expect(0).stdout;
    for part in [
        "anvil listens",
        "manifest ",
        "is killed",
        "rebuilt",
        "none of them got in",
        "a runtime opens",
        "proved",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert_eq!(std::fs::read_dir(home.path("")).unwrap().count(), 0, "it leaves something behind");
}
