//! The dashboard and the alerts in `deploy/` are of numbers that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use node::{Config, Node, chain_reader};
use promql_parser::label::Matchers;
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde::Deserialize;

use super::*;

/// What Prometheus itself adds.
const OF_THE_SCRAPE: [&str; 2] = ["instance", "job"];

/// The names of a node's metrics, as samples have them, each with its labels as far as it has samples.
async fn names() -> BTreeMap<String, BTreeSet<String>> {
    let dir = tempfile::tempdir().unwrap();
    let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().unwrap();
    let chain = chain_reader::Config::new("http://127.0.0.1:1".parse().unwrap(), contract);
    let node = Node::start(Config::new(dir.path()).with_chain(chain)).await.unwrap();
    let text = encode(&node.numbers().await.unwrap());
    node.shutdown().await;
    let mut names = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let end = if kind == "counter" { "_total" } else { "" };
            names.insert(format!("{name}{end}"), BTreeSet::new());
        } else if let Some((name, labels)) = line.split_once('{') {
            let (labels, _) = labels.rsplit_once('}').unwrap();
            let labels = labels.split(',').map(|label| label.split_once('=').unwrap().0.to_owned());
            names.get_mut(name).unwrap_or_else(|| panic!("{line} was not declared")).extend(labels);
        }
    }
    names
}

/// The selectors in an expression: names, and labels that are asked for.
#[derive(Default)]
struct Selectors(Vec<(String, Vec<String>)>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        let (name, Matchers { matchers, .. }) = match expr {
            Expr::VectorSelector(one) => (&one.name, &one.matchers),
            Expr::MatrixSelector(one) => (&one.vs.name, &one.vs.matchers),
            _ => return Ok(true),
        };
        let name = name.clone().ok_or("a selector without a name")?;
        self.0.push((name, matchers.iter().map(|matcher| matcher.name.clone()).collect()));
        Ok(true)
    }
}

/// Fails the test unless all names and labels of the expression are there. Returns the names.
fn check(expression: &str, names: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    // Grafana puts these in.
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut selectors = Selectors::default();
    walk_expr(&mut selectors, &parsed).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert!(!selectors.0.is_empty(), "{expression} is of nothing");
    for (name, asked) in &selectors.0 {
        let labels = names.get(name).unwrap_or_else(|| panic!("{expression}: there is no {name}"));
        for label in asked.iter().filter(|label| !OF_THE_SCRAPE.contains(&label.as_str())) {
            assert!(labels.contains(label), "{expression}: {name} has no label {label}");
        }
    }
    selectors.0.into_iter().map(|(name, _)| name).collect()
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    pending: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_is_of_numbers_that_there_are() {
    let names = names().await;
    let rules: Rules = serde_saphyr::from_str(&read("prometheus/alerts.yaml")).unwrap();
    let mut alerts = BTreeSet::new();
    for group in &rules.groups {
        assert!(!group.name.is_empty() && !group.rules.is_empty());
        for rule in &group.rules {
            assert!(alerts.insert(&rule.alert), "{} comes twice", rule.alert);
            check(&rule.expr, &names);
            assert!(
                ["info", "warning", "critical"].contains(&rule.labels["severity"].as_str()),
                "{}",
                rule.alert
            );
            assert!(rule.annotations.contains_key("summary") && rule.annotations.contains_key("description"));
            let is_time =
                |text: &str| text.strip_suffix('m').is_some_and(|minutes| minutes.parse::<u32>().is_ok());
            assert!(rule.pending.as_deref().is_none_or(is_time), "{}", rule.alert);
        }
    }
    let below = "loader_rarest_column_live_shards < loader_rarest_column_needed_shards";
    assert!(rules.groups.iter().flat_map(|group| &group.rules).any(|rule| rule.expr == below));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_of_all_numbers_that_there_are() {
    let names = names().await;
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/loader.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id comes twice");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown: BTreeSet<String> =
        targets.flat_map(|target| check(target["expr"].as_str().unwrap(), &names)).collect();
    let all: BTreeSet<String> = names.into_keys().collect();
    assert_eq!(shown, all, "what is counted is shown");
}
