//! The numbers in the text format of OpenMetrics. `docs/operations.md` says what to watch; `deploy/` has a dashboard and
//! alerts, which a test checks against the names here.

use std::fmt;

use node::chain_reader::ChainStatus;
use node::p2p_blob::Transport;
use node::status::{Arrival, Numbers};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// All names begin so.
const PREFIX: &str = "loader";

/// The text for a scrape.
pub(crate) fn encode(numbers: &Numbers) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families(numbers))));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode_text(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

/// A metric, and its samples.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Vec<(&'static str, String)>, Value)>,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { name, help, unit, kind, samples } in &self.0 {
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            match samples.as_slice() {
                // Without labels, braces are left away.
                [(labels, value)] if labels.is_empty() => value.encode(*kind, metric)?,
                samples => {
                    for (labels, value) in samples {
                        value.encode(*kind, metric.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(self, kind: MetricType, sample: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match (kind, self) {
            (MetricType::Counter, Self::Whole(value)) => ConstCounter::new(value).encode(sample),
            (MetricType::Counter, Self::Real(value)) => ConstCounter::new(value).encode(sample),
            (_, Self::Whole(value)) => ConstGauge::new(value).encode(sample),
            (_, Self::Real(value)) => ConstGauge::new(value).encode(sample),
        }
    }
}

impl Family {
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: None, kind: MetricType::Counter, samples: Vec::new() }
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { kind: MetricType::Gauge, ..Self::counter(name, help) }
    }

    /// The unit is the end of the name.
    fn unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }

    fn with(mut self, labels: &[(&'static str, &str)], value: Value) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        self.samples.push((labels.collect(), value));
        self
    }

    fn maybe(self, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.with(&[], value),
            None => self,
        }
    }

    /// One sample for each of these, with this label.
    fn by<'a>(self, label: &'static str, samples: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        samples
            .into_iter()
            .fold(self, |family, (name, value)| family.with(&[(label, name)], Value::Whole(value)))
    }
}

fn families(numbers: &Numbers) -> Vec<Family> {
    let mut all = of_loads(numbers);
    all.extend(of_serving(numbers));
    all.extend(of_cache(numbers));
    all.extend(of_chains(&numbers.chains));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    all.push(Family::gauge("build", "Always 1; the version is in the label").with(&version, Value::Whole(1)));
    all
}

fn of_loads(numbers: &Numbers) -> Vec<Family> {
    let (counts, whole) = (&numbers.counts, |value: u64| Some(Value::Whole(value)));
    let mut bytes =
        Family::counter("transferred", "Bytes of models by direction, transport, and what came of them")
            .unit(Unit::Bytes);
    for transport in Transport::ALL {
        for arrival in Arrival::ALL {
            let labels = [("direction", "in"), ("transport", transport.name()), ("outcome", arrival.name())];
            bytes = bytes.with(&labels, Value::Whole(counts.received_bytes(transport, arrival)));
        }
        let labels = [("direction", "out"), ("transport", transport.name()), ("outcome", "sent")];
        bytes = bytes.with(&labels, Value::Whole(numbers.traffic.sent_bytes(transport)));
    }
    vec![
        bytes,
        Family::counter("pieces", "Pieces by what came of them").by(
            "outcome",
            [
                ("fetched", counts.pieces_fetched),
                ("rebuilt", counts.pieces_rebuilt),
                ("reused", counts.pieces_reused),
                ("resumed", counts.pieces_resumed),
                ("wrong", counts.pieces_wrong),
            ],
        ),
        Family::counter("spared", "Bytes that no peer had to send, by where they came from").unit(Unit::Bytes).by(
            "origin",
            [
                ("rebuilt", counts.rebuilt_bytes),
                ("reused", counts.reused_bytes),
                ("resumed", counts.resumed_bytes),
            ],
        ),
        Family::counter("verify", "Time that threads spent on hashing, and writing")
            .unit(Unit::Seconds)
            .maybe(Some(Value::Real(counts.verifying.as_secs_f64()))),
        Family::counter("rebuild", "Time that threads spent on rebuilding")
            .unit(Unit::Seconds)
            .maybe(Some(Value::Real(counts.rebuilding.as_secs_f64()))),
        Family::counter("bans", "Sources that are not asked any more, as they lied").maybe(whole(counts.bans)),
        Family::counter("loads", "Loads that have ended, by whether they gave a model")
            .by("outcome", [("done", counts.loads_done), ("failed", counts.loads_failed)]),
        Family::gauge("last_load_timestamp", "When the last load was done, in seconds since 1970")
            .unit(Unit::Seconds)
            .maybe(numbers.last_load.map(|load| Value::Whole(load.ended_at))),
        Family::gauge("last_load_duration", "How long the last load took")
            .unit(Unit::Seconds)
            .maybe(numbers.last_load.map(|load| Value::Real(load.took.as_secs_f64()))),
        Family::gauge(
            "rarest_column_live_shards",
            "Shards' parts of the scarcest column that are here or with a connected source; of the load in progress, or the last",
        )
        .maybe(numbers.scarcity.map(|found| Value::Whole(found.rarest.into()))),
        Family::gauge("rarest_column_needed_shards", "How many of them are needed: with fewer, bytes are lost")
            .maybe(numbers.scarcity.map(|found| Value::Whole(found.needed.into()))),
        Family::gauge("ready", "1 when a model that was wanted is mapped, or none is wanted")
            .maybe(whole(numbers.is_ready.into())),
    ]
}

fn of_serving(numbers: &Numbers) -> Vec<Family> {
    let (traffic, count) = (&numbers.traffic, |value: usize| Value::Whole(value as u64));
    vec![
        Family::gauge("peers", "Peers by state: connected as sources of a load, connected otherwise, banned")
            .with(&[("state", "source")], count(numbers.peers_sources))
            .with(&[("state", "other")], count(numbers.peers_others))
            .with(&[("state", "banned")], count(numbers.peers_banned)),
        Family::gauge("queued_requests", "Requests of peers that wait for an upload slot")
            .maybe(Some(count(traffic.queued_requests))),
        Family::gauge("answers_under_way", "Answers that are being sent")
            .maybe(Some(count(traffic.answers_under_way))),
        Family::counter("busy_answers", "Answers \"busy\", by who gave them")
            .by("direction", [("given", traffic.busy_answers_given), ("got", traffic.busy_answers_got)]),
    ]
}

fn of_cache(numbers: &Numbers) -> Vec<Family> {
    let cache = Family::gauge("cache", "What each model in the cache takes of the disk").unit(Unit::Bytes);
    let cache = numbers.cached.iter().fold(cache, |cache, model| {
        let state = if model.is_finished { "finished" } else { "partial" };
        cache.with(&[("model", &model.manifest), ("state", state)], Value::Whole(model.disk_bytes))
    });
    let free = Family::gauge("disk_free", "What is free on the disk of the cache").unit(Unit::Bytes);
    vec![cache, free.maybe(numbers.disk_free_bytes.map(Value::Whole))]
}

/// Of each contract.
fn of_chains(chains: &[ChainStatus]) -> Vec<Family> {
    let mut height = Family::gauge("chain_height", "The newest block that a quorum of the endpoints has");
    let mut lag = Family::gauge(
        "chain_lag_blocks",
        "How far that is behind the highest block that an endpoint reports",
    );
    let mut age = Family::gauge("chain_block_age", "How old that block is, by this machine's clock")
        .unit(Unit::Seconds);
    let mut disagreements = Family::counter("chain_disagreements", "How often endpoints disagreed");
    let mut rounds =
        Family::counter("chain_rounds", "How often the endpoints were asked, by whether a quorum agreed");
    for chain in chains {
        let Some(name) = name(chain, chains) else { continue };
        let contract = [("contract", &*name)];
        if let Some(block) = chain.block {
            let highest = chain.endpoints.iter().filter_map(|endpoint| endpoint.height).max();
            height = height.with(&contract, Value::Whole(block.number));
            age = age.with(&contract, Value::Whole(block.age_s));
            if let Some(highest) = highest {
                lag = lag.with(&contract, Value::Whole(highest.saturating_sub(block.number)));
            }
        }
        disagreements = disagreements.with(&contract, Value::Whole(chain.disagreements));
        let without = chain.rounds_without_quorum;
        for (outcome, count) in [("agreed", chain.rounds.saturating_sub(without)), ("no_quorum", without)] {
            rounds = rounds.with(&[("contract", &name), ("outcome", outcome)], Value::Whole(count));
        }
    }
    vec![height, lag, age, disagreements, rounds]
}

/// The contract's address; of several with the same address, with the chain, once that is known.
fn name(chain: &ChainStatus, all: &[ChainStatus]) -> Option<String> {
    match all.iter().filter(|other| other.contract == chain.contract).count() {
        1 => Some(chain.contract.clone()),
        _ => Some(format!("{}@{}", chain.contract, chain.chain_id?)),
    }
}

#[cfg(test)]
mod tests;
