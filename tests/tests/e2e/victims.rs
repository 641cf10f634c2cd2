//! Attackers that name victims: whom a node is made to dial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use e2e::{Home, Lure, Network, Process, Reached};
use tokio::process::Command;

/// On the same machine, in the same private network, and anywhere.
const VICTIMS: [&str; 3] = ["127.0.0.5", "10.0.0.5", "9.9.9.5"];
/// From where the attacker comes, and how many of the victims are nearer than that: a node dials the others.
const ATTACKS: [(&str, usize); 3] = [("127.0.0.9", 0), ("10.0.0.9", 1), ("9.9.9.9", 2)];
/// Where the node is.
const NODE: &str = "/ip4/9.9.9.1/tcp/0";
/// A model that nobody has.
const MODEL: &str = "5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c";

/// An attack from there.
fn attacker(attack: &str, target: &str, from: &str, victims: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attacker"));
    command.args([attack, target, from]).args(victims);
    command
}

/// A fetch that knows the attacker only, and waits for somebody who has the model.
fn fetch(home: &Home, from: &str) -> Command {
    home.command(["fetch", "--wait", "5m", "--manifest", MODEL, "--bootstrap", from])
}

/// A network in which the attackers, the victims and the node have their addresses.
async fn network() -> Network {
    Network::with(&["10.0.0.5", "10.0.0.9", "9.9.9.1", "9.9.9.5", "9.9.9.9"]).await
}

/// Who was reached, and how they had been named.
fn ips(reached: &[Reached]) -> BTreeSet<(&str, IpAddr)> {
    reached.iter().map(|one| (one.how.as_str(), one.at.ip())).collect()
}

/// These victims, named in all of these ways.
fn all<'a>(hows: &[&'a str], victims: &[&str]) -> BTreeSet<(&'a str, IpAddr)> {
    let ips = victims.iter().map(|ip| ip.parse().unwrap());
    ips.flat_map(|ip| hows.iter().map(move |how| (*how, ip))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_many_names_floods_nobody() {
    let home = Home::new();
    let victims = ["127.0.0.5", "127.0.0.6", "127.66.0.0"];
    let mut lure = Lure::start(attacker("peers-flood", "-", "127.0.0.9", &victims));
    let address = lure.address().await;
    let begun = Instant::now();
    let fetching = Process::start(fetch(&home, &address));
    let counts = |reached: &[Reached]| {
        let mut counts = BTreeMap::<_, usize>::new();
        for one in reached.iter().map(|one| one.how.as_str()).filter(|how| *how != "name") {
            *counts.entry(one.to_owned()).or_default() += 1;
        }
        let names: BTreeSet<_> = reached.iter().filter(|one| one.how == "name").map(|one| one.at).collect();
        let count = |how: &str| counts.get(how).copied().unwrap_or(0);
        [count("port"), count("address"), names.len()]
    };
    // As much as a node does at once for one port, one address, and one peer that names others.
    let bursts = [8, 64, 128];
    lure.reaches(|reached| counts(reached).iter().zip(bursts).all(|(count, burst)| *count >= burst)).await;
    // All of the names once more: time enough to do more than that.
    let answered = lure.answered().await;
    lure.answers(answered + 8).await;
    fetching.kill().await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let found = counts(&lure.end().await);
    for ((count, burst), per_minute) in found.into_iter().zip(bursts).zip([4, 60, 32]) {
        let may = burst as f64 + minutes * f64::from(per_minute);
        assert!(count as f64 <= may, "{found:?}, but {may} is the most of {burst}");
    }
}

/// A fetch that the attacker names all victims to, in all of these ways, dials those that are as far away as the attacker.
async fn fetch_under(attack: &str, ways: &[&str]) {
    let network = network().await;
    for (from, nearer) in ATTACKS {
        let home = Home::new();
        let mut lure = Lure::start(network.inside(&attacker(attack, MODEL, from, &VICTIMS)));
        let fetching = Process::start(network.inside(&fetch(&home, &lure.address().await)));
        let expected = all(ways, &VICTIMS[nearer..]);
        lure.reaches(|reached| ips(reached).is_superset(&expected)).await;
        // The node asks again a while after it has dialled whom the first answer names.
        let answered = lure.answered().await;
        lure.answers(answered + 1).await;
        fetching.kill().await;
        assert_eq!(ips(&lure.end().await), expected, "from {from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_leads_to_nobody_nearer_than_itself() {
    fetch_under("peers-nearby", &["peer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dht_leads_to_nobody_nearer_than_who_answers() {
    fetch_under("dht-nearby", &["provider", "server"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_dialled_back_nearer_than_who_asks() {
    let network = network().await;
    for (from, nearer) in ATTACKS {
        let home = Home::new();
        let mut serving = Process::start(network.inside(&home.command(["serve", "--listen", NODE])));
        let target = serving.first_line().await;
        let mut lure = Lure::start(network.inside(&attacker("autonat-nearby", &target, from, &VICTIMS)));
        // The node answers when it has dialled.
        lure.answers(VICTIMS.len()).await;
        assert_eq!(ips(&lure.end().await), all(&["dial-back"], &VICTIMS[nearer..]), "from {from}");
    }
}
