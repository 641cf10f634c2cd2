//! Ban scores of sources that were caught lying, which decay with time.

use std::collections::BTreeMap;

use manifest::SourceId;

/// Half-life of points.
const HALF_LIFE_S: f64 = 24.0 * 3600.0;
/// Points from which a source is banned: one conviction lasts a day, each further one within that time longer.
const BANNED: f64 = 0.5;
const MAX_POINTS: f64 = 8.0;
/// Sources remembered; beyond that those with the fewest points are evicted.
const MAX_SOURCES: usize = 1024;
/// The longest source id; peer ids have about fifty characters.
const MAX_NAME_BYTES: usize = 128;
/// What a file of bans begins with.
const HEADER: &str = "loader bans 1";
/// The longest file of bans.
pub(crate) const MAX_BANS_BYTES: u64 = 64 + (MAX_SOURCES * (MAX_NAME_BYTES + 40)) as u64;

/// Points of sources that have sent wrong bytes where others then sent right ones. Times are Unix seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BanList {
    points: BTreeMap<SourceId, Points>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Points {
    at_s: u64,
    count: f64,
}

impl Points {
    fn now(self, now_s: u64) -> f64 {
        // A clock that was set back forgives nothing.
        #[expect(clippy::cast_precision_loss, reason = "an age")]
        let age_s = now_s.saturating_sub(self.at_s) as f64;
        self.count * 0.5_f64.powf(age_s / HALF_LIFE_S)
    }
}

impl BanList {
    /// Whether a source is banned.
    pub fn is_banned(&self, source: &SourceId, now_s: u64) -> bool {
        self.points.get(source).is_some_and(|points| points.now(now_s) >= BANNED)
    }

    /// A source was caught lying.
    pub fn convict(&mut self, source: &SourceId, now_s: u64) {
        let is_storable = |character: char| character.is_ascii_graphic();
        if source.as_str().len() > MAX_NAME_BYTES || !source.as_str().chars().all(is_storable) {
            return;
        }
        let before = self.points.get(source).map_or(0.0, |points| points.now(now_s));
        let count = (before + 1.0).min(MAX_POINTS);
        self.points.insert(source.clone(), Points { at_s: now_s, count });
        if self.points.len() > MAX_SOURCES {
            let least = self.points.iter().min_by(|(_, a), (_, b)| a.now(now_s).total_cmp(&b.now(now_s)));
            if let Some(least) = least.map(|(source, _)| source.clone()) {
                self.points.remove(&least);
            }
        }
    }

    /// Moves convictions from the future to now. Returns whether there were any.
    pub(crate) fn end_future(&mut self, now_s: u64) -> bool {
        let mut is_changed = false;
        for points in self.points.values_mut().filter(|points| points.at_s > now_s) {
            points.at_s = now_s;
            is_changed = true;
        }
        is_changed
    }

    /// As a file: a header, then a line for each source with the time, the points at that time in thousandths, and its
    /// name.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (source, points) in &self.points {
            text.push_str(&format!("{} {:.0} {source}\n", points.at_s, points.count * 1000.0));
        }
        text
    }

    /// The bans in such a file. What is not well-formed is left out.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Self::default();
        }
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let (at_s, thousandths): (u64, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let source = words.next().filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES)?;
            let count = (f64::from(thousandths) / 1000.0).min(MAX_POINTS);
            words.next().is_none().then(|| (SourceId::new(source), Points { at_s, count }))
        };
        Self { points: lines.filter_map(parse).take(MAX_SOURCES).collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_S: u64 = 3600;

    #[test]
    fn a_ban_lasts_a_day_and_longer_when_it_is_repeated() {
        let (liar, other) = (SourceId::new("liar"), SourceId::new("other"));
        let mut bans = BanList::default();
        bans.convict(&liar, 1_000);
        assert!(bans.is_banned(&liar, 1_000) && bans.is_banned(&liar, 23 * HOUR_S));
        assert!(!bans.is_banned(&liar, 25 * HOUR_S) && !bans.is_banned(&other, 1_000));
        bans.convict(&liar, 25 * HOUR_S);
        assert!(bans.is_banned(&liar, (25 + 36) * HOUR_S));
        assert!(!bans.is_banned(&liar, (25 + 48) * HOUR_S));
        for _ in 0..100 {
            bans.convict(&liar, 0);
        }
        assert!(bans.is_banned(&liar, 90 * HOUR_S), "the clock was set back");
        assert!(!bans.is_banned(&liar, 24 * 8 * HOUR_S), "nothing is for ever");
    }

    #[test]
    fn a_conviction_from_the_future_counts_from_now() {
        let mut bans =
            BanList::from_text(&format!("{HEADER}\n{} 8000 a\n{} 1000 b\n100 1000 c\n", u64::MAX, 101));
        let [a, b, c] = ["a", "b", "c"].map(SourceId::new);
        assert!(bans.end_future(100) && !bans.end_future(100));
        assert!([&a, &b, &c].iter().all(|liar| bans.is_banned(liar, 100)));
        let later = 100 + 25 * HOUR_S;
        assert!(bans.is_banned(&a, later) && !bans.is_banned(&b, later) && !bans.is_banned(&c, later));
        assert!(!bans.is_banned(&a, 100 + 24 * 8 * HOUR_S), "nothing is for ever");
    }

    #[test]
    fn so_many_are_remembered_and_the_least_forgotten() {
        let mut bans = BanList::default();
        let name = |number: usize| SourceId::new(format!("source-{number}"));
        bans.convict(&name(0), 0);
        bans.convict(&name(0), 0);
        (1..2 * MAX_SOURCES).for_each(|number| bans.convict(&name(number), number as u64));
        assert_eq!(bans.points.len(), MAX_SOURCES);
        assert!(bans.is_banned(&name(0), 0) && !bans.is_banned(&name(1), 0));
        assert!(bans.to_text().len() as u64 <= MAX_BANS_BYTES);
        bans.convict(&SourceId::new("a name\nwith more"), 0);
        bans.convict(&SourceId::new("x".repeat(1000)), 0);
        assert_eq!(bans.points.len(), MAX_SOURCES);
    }

    #[test]
    fn what_is_not_well_formed_is_left_out() {
        for text in ["", "other\n1 1000 a\n", "loader bans 2\n1 1000 a\n"] {
            assert_eq!(BanList::from_text(text), BanList::default(), "{text}");
        }
        let bans = BanList::from_text("loader bans 1\n1 1000 a\n1 x b\n2\n\n3 1000 c d\n4 9999999 e\n");
        assert!(bans.is_banned(&SourceId::new("a"), 1) && bans.is_banned(&SourceId::new("e"), 1));
        assert_eq!(bans.points.len(), 2);
    }

    proptest! {
        #[test]
        fn files_round_trip(convictions in prop::collection::vec(("[!-~]{1,60}", 0_u64..1 << 40), 0..40)) {
            let mut bans = BanList::default();
            for (name, at_s) in &convictions {
                bans.convict(&SourceId::new(name.as_str()), *at_s);
            }
            let read = BanList::from_text(&bans.to_text());
            for (name, at_s) in &convictions {
                let source = SourceId::new(name.as_str());
                prop_assert_eq!(read.is_banned(&source, at_s + 60), bans.is_banned(&source, at_s + 60));
            }
            prop_assert_eq!(read.to_text(), bans.to_text());
        }

        #[test]
        fn any_file_is_read(text in "(loader bans 1\n)?(.|\n){0,200}") {
            let _ = BanList::from_text(&text);
        }
    }
}
