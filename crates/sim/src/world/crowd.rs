//! Who is in a swarm, whom each knows, and who will leave it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use manifest::Geometry;
use planner::{PlanConfig, Planner, SourceKey, SourceLimit};

use super::{Conduct, Event, Neighbour, Node, SEEDER, World};
use crate::clock::{Agenda, MS, Time};
use crate::model;
use crate::scenario::Scenario;
use crate::server::Server;

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let manifest = Arc::new(model::manifest(scenario.pieces));
        let geometry = Geometry::new(Arc::clone(&manifest));
        let epoch = Instant::now();
        let count = scenario.nodes + 1;
        let mut world = Self {
            epoch,
            now: 0,
            agenda: Agenda::new(),
            nodes: Vec::new(),
            transfers: Vec::new(),
            free: Vec::new(),
            left: 0,
            events: 0,
            received_bytes: 0,
            busy: 0,
            asked: BTreeMap::new(),
            random: random.fork(),
            scenario,
        };
        for node in 0..count {
            let conduct = world.conduct(node);
            world.left += u32::from(node != SEEDER && conduct == Conduct::Honest);
            world.nodes.push(Node {
                conduct,
                is_up: true,
                started: node == SEEDER,
                planner: Planner::new(
                    geometry.clone(),
                    true,
                    PlanConfig { seed: random.u64(..), ..PlanConfig::default() },
                    epoch,
                ),
                neighbours: Vec::new(),
                connected: 0,
                limit: SourceLimit::new(0, epoch),
                known_by: Vec::new(),
                under_way: HashMap::new(),
                wakes_at: None,
                read: 0,
                is_reading: false,
                began_reading_at: None,
                log: Vec::new(),
                stored: HashMap::new(),
                server: Server::new(world.scenario.window_bytes),
                receives_from: 0,
                sent_bytes: 0,
                done_at: None,
            });
        }
        let start = (world.scenario.start_ms * MS).max(1);
        for node in 1..count {
            world.acquaint(node);
            let at = world.random.u64(0..start);
            world.agenda.add(at, Event::Start(node));
        }
        world.plan_leaving();
        world
    }

    fn conduct(&mut self, node: u32) -> Conduct {
        let lot = self.random.u32(0..100);
        let (lying, stalled) = (self.scenario.lying_percent, self.scenario.stalled_percent);
        match lot {
            _ if node == SEEDER => Conduct::Honest,
            lot if lot < lying => Conduct::Lies,
            lot if lot < lying + stalled => Conduct::Stalls,
            _ => Conduct::Honest,
        }
    }

    /// A node knows the first seeder and some others.
    fn acquaint(&mut self, node: u32) {
        let count = self.scenario.nodes + 1;
        let wanted = self.scenario.neighbours.min(self.scenario.nodes) as usize;
        let mut known = vec![SEEDER];
        while known.len() < wanted {
            let other = self.random.u32(1..count);
            if other != node && !known.contains(&other) {
                known.push(other);
            }
        }
        for (key, other) in (0..).map(SourceKey).zip(known) {
            self.nodes[node as usize].neighbours.push(Neighbour { node: other, known: 0 });
            self.nodes[other as usize].known_by.push((node, key));
        }
    }

    fn plan_leaving(&mut self) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some minutes")]
        let bound = (self.scenario.bound_s() * 1e9) as Time;
        let start = (self.scenario.start_ms * MS).max(1);
        for node in 1..=self.scenario.nodes {
            let leaves = self.random.u32(0..100) < self.scenario.leaving_percent;
            let at = self.random.u64(start..bound.max(start + 1));
            if leaves {
                self.agenda.add(at, Event::Leave(node));
            }
        }
    }
}
