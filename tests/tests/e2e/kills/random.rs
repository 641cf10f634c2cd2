//! Kills at random moments, and damage to what they leave: `cargo xtask kills` makes more of them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Home, Model, PIECE_BYTES, Peer, Recipe};
use fastrand::Rng;

use super::{assert_mended, files_under, variable};

/// In the suite.
const KILLS: u64 = 10;
/// Most fetches are over by then.
const LONGEST_MS: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_killed_at_random_moments_on_a_disk_that_goes_bad_ends_with_the_right_bytes() {
    let kills = variable("LOADER_KILLS").unwrap_or(KILLS);
    let seed = variable("LOADER_KILLS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{kills} kills, seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let model = Recipe::of_size(40 * PIECE_BYTES + 77).publish().await;
    let (mut home, mut killed, mut whole) = (Home::new(), 0, 0);
    loop {
        let how = format!("seed {seed}, after {killed} kills and {whole} whole fetches");
        let is_killed = killed < kills && kill(&mut rng, &home, &model, &how).await;
        if is_killed {
            killed += 1;
            (0..rng.u8(..3)).for_each(|_| damage(&mut rng, &home, &model));
            continue;
        }
        let peer = Peer::start(model.conduct()).await;
        assert_mended(&home, &model, peer.address(), &how).await;
        if killed == kills {
            return println!("{how}");
        }
        (home, whole) = (Home::new(), whole + 1);
    }
}

/// Kills a fetch: when so much was sent, or after so long. `false` when it had come to a good end before.
async fn kill(rng: &mut Rng, home: &Home, model: &Model, how: &str) -> bool {
    let total_bytes = model.weights.len() as u64;
    let by_bytes = rng.bool();
    let limit_bytes = if by_bytes { rng.u64(..total_bytes) } else { u64::MAX };
    let peer = Peer::start(model.conduct().stopping_after(limit_bytes)).await;
    let fetching = home.start_fetch(model, &[peer.address()]);
    let moment = async {
        match by_bytes {
            true => peer.gate().reached().await,
            // No event but a moment is what is wanted.
            false => tokio::time::sleep(Duration::from_millis(rng.u64(..LONGEST_MS))).await,
        }
    };
    let ended = fetching.killed_at(moment).await;
    if let Some(outcome) = &ended {
        assert_eq!(outcome.status, Some(0), "{how}: {}", outcome.stderr);
    }
    ended.is_none()
}

/// Flips a bit in a file of the partial model, or cuts it, if there is one.
fn damage(rng: &mut Rng, home: &Home, model: &Model) {
    let dir = home.cache("partial").join(&model.id);
    let files: Vec<PathBuf> = match dir.is_dir() {
        true => files_under(&dir).into_iter().filter(|path| path.is_file()).collect(),
        false => Vec::new(),
    };
    let Some(path) = rng.choice(&files) else { return };
    let size_bytes = fs::metadata(path).unwrap().len();
    if size_bytes == 0 {
        return;
    }
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = rng.u64(..size_bytes);
    if rng.bool() {
        return file.set_len(at).unwrap();
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << rng.u8(..8)], at).unwrap();
}
