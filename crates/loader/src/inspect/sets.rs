//! Weights that belong together by their names, such as `model-00001-of-00002.safetensors`.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{Dir, DirFile, Troubles, some_of};
use super::safetensors;

pub(super) const GGUF: &str = ".gguf";
/// More would not fit the number.
const MAX_DIGITS: usize = 9;
/// Most missing parts that are named.
const MAX_PARTS_NAMED: usize = 3;

/// Which part of which set a file is.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    /// Before the number.
    stem: &'a str,
    number: u32,
    /// How many there are, as it is written.
    of: &'a str,
    /// Between that and the extension: nothing, or a variant such as `.fp16`.
    variant: &'a str,
}

impl<'a> Part<'a> {
    fn of(name: &'a str, extension: &str) -> Option<Self> {
        let (rest, of) = name.strip_suffix(extension)?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (of, variant) = of.split_at(of.find(|char: char| !char.is_ascii_digit()).unwrap_or(of.len()));
        let is_number = |text: &str| {
            (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_part = is_number(number) && is_number(of) && (variant.is_empty() || variant.starts_with('.'));
        is_part.then_some(())?;
        Some(Self { stem, number: number.parse().ok()?, of, variant })
    }
}

/// The parts of one set.
struct Set<'a> {
    stem: &'a str,
    of: &'a str,
    variant: &'a str,
    extension: &'static str,
    numbers: BTreeSet<u32>,
}

impl Set<'_> {
    /// `model-*-of-00002.safetensors`.
    fn shown(&self) -> String {
        format!("{}-*-of-{}{}{}", self.stem, self.of, self.variant, self.extension)
    }

    fn total(&self) -> u32 {
        self.of.parse().unwrap_or(u32::MAX)
    }

    fn check(&self, prefix: &str, troubles: &mut Troubles) {
        let (total, shown) = (self.total(), self.shown());
        // Some tools count from 0.
        let first = u32::from(!self.numbers.contains(&0) || self.numbers.contains(&total));
        let expected = first..first.saturating_add(total);
        let beyond: Vec<String> = self
            .numbers
            .iter()
            .filter(|number| !expected.contains(number))
            .map(|number| number.to_string())
            .collect();
        let missing = u64::from(total) - (self.numbers.len() - beyond.len()) as u64;
        if missing > 0 {
            let absent = expected.filter(|number| !self.numbers.contains(number));
            let named: Vec<String> = absent.take(MAX_PARTS_NAMED).map(|number| number.to_string()).collect();
            let (named, more) = (named.join(", "), if missing > MAX_PARTS_NAMED as u64 { ", …" } else { "" });
            troubles.add(format!("{prefix}{shown}: {missing} of {total} parts missing ({named}{more})"));
        }
        if !beyond.is_empty() {
            troubles.add(format!("{prefix}{shown}: parts beyond its {total}: {}", some_of(&beyond)));
        }
    }
}

/// The sets of these files, and those that are for themselves.
fn sets_of<'a>(
    files: impl Iterator<Item = &'a str>,
    extension: &'static str,
) -> (Vec<Set<'a>>, Vec<&'a str>) {
    let mut sets: BTreeMap<_, Set<'_>> = BTreeMap::new();
    let mut single = Vec::new();
    for name in files {
        let Some(Part { stem, number, of, variant }) = Part::of(name, extension) else {
            single.push(name);
            continue;
        };
        let new = || Set { stem, of, variant, extension, numbers: BTreeSet::new() };
        sets.entry((stem, of, variant)).or_insert_with(new).numbers.insert(number);
    }
    (sets.into_values().collect(), single)
}

/// Looks at the `*.safetensors` of a folder that has no index for them.
pub(super) fn check_safetensors(dir: &Dir<'_>, weights: &[&DirFile<'_>], troubles: &mut Troubles) {
    let names = weights.iter().map(|file| file.name);
    let (sets, single) = sets_of(names, safetensors::EXTENSION);
    for set in &sets {
        set.check(dir.prefix, troubles);
        if set.total() > 1 {
            troubles.add(format!(
                "{}{} has no index, expected {}{}.index{}.json beside it: a runtime does not find its parts",
                dir.prefix,
                set.shown(),
                set.stem,
                set.extension,
                set.variant
            ));
        }
    }
    if sets.len() + single.len() > 1 {
        let mut shown: Vec<String> = sets.iter().map(Set::shown).collect();
        shown.extend(single.into_iter().map(str::to_owned));
        troubles.add(several(dir, &shown));
    }
}

/// Looks at the split `*.gguf` of a folder. Several sets are usual: a runtime loads the one that it is given.
pub(super) fn check_gguf(dir: &Dir<'_>, troubles: &mut Troubles) {
    let names = dir.files.iter().map(|file| file.name).filter(|name| name.ends_with(GGUF));
    for set in sets_of(names, GGUF).0 {
        set.check(dir.prefix, troubles);
    }
}

/// That one folder has more than one set of weights.
pub(super) fn several<S: AsRef<str>>(dir: &Dir<'_>, sets: &[S]) -> String {
    format!(
        "{} has several sets of weights: {}: a runtime that loads every *.safetensors of a folder loads all",
        dir.shown(),
        some_of(sets)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tests::{Memory, WEIGHTS, only};

    fn weights(names: &[&str]) -> Memory {
        names.iter().fold(Memory::new(&[]), |folder, name| folder.with(name, WEIGHTS))
    }

    fn ggufs(names: &[&str]) -> Memory {
        names.iter().fold(Memory::new(&[]), |folder, name| folder.with(name, b"GGUF\x03"))
    }

    #[test]
    fn names_of_parts_are_taken_apart() {
        let part = Part::of("a-b-00001-of-000163.fp16.gguf", GGUF);
        assert_eq!(part, Some(Part { stem: "a-b", number: 1, of: "000163", variant: ".fp16" }));
        for name in [
            "a.gguf",
            "a-1-of-.gguf",
            "a-x-of-2.gguf",
            "1-of-2.gguf",
            "a-1-of-2b.gguf",
            "a-1-of-9999999999.gguf",
        ] {
            assert_eq!(Part::of(name, GGUF), None, "{name}");
        }
    }

    #[test]
    fn parts_without_an_index_are_told() {
        let trouble = only(&weights(&["x/m-00001-of-00002.safetensors", "x/m-00002-of-00002.safetensors"]));
        assert!(
            trouble.contains("x/m-*-of-00002.safetensors has no index, expected m.safetensors.index.json")
        );
    }

    #[test]
    fn missing_parts_of_safetensors_are_told() {
        let troubles = weights(&["m-00001-of-00003.safetensors"]).troubles();
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[0].contains("2 of 3 parts missing (2, 3)"), "{troubles:?}");
        assert!(weights(&["m-00001-of-00001.safetensors"]).troubles().is_empty());
    }

    #[test]
    fn a_second_set_of_weights_is_told() {
        for names in [
            &["a/model.safetensors", "a/consolidated.safetensors"][..],
            &["a/model.safetensors", "a/model-00001-of-00001.safetensors"],
        ] {
            let trouble = only(&weights(names));
            assert!(trouble.starts_with("a/ has several sets of weights: "), "{trouble}");
        }
        assert!(weights(&["unet/model.safetensors", "vae/model.safetensors"]).troubles().is_empty());
    }

    #[test]
    fn missing_parts_of_gguf_and_those_beyond_are_told() {
        assert!(
            ggufs(&["q4-00001-of-00002.gguf", "q4-00002-of-00002.gguf", "q8.gguf"]).troubles().is_empty()
        );
        assert_eq!(only(&ggufs(&["q-00002-of-00002.gguf"])), "q-*-of-00002.gguf: 1 of 2 parts missing (1)");
        let beyond = ["q-1-of-2.gguf", "q-2-of-2.gguf", "q-3-of-2.gguf"];
        assert_eq!(only(&ggufs(&beyond)), "q-*-of-2.gguf: parts beyond its 2: 3");
        assert!(only(&ggufs(&["a/q-1-of-999999999.gguf"])).contains("(2, 3, 4, …)"));
    }

    #[test]
    fn parts_may_be_counted_from_0() {
        assert!(ggufs(&["q-00000-of-00002.gguf", "q-00001-of-00002.gguf"]).troubles().is_empty());
        let both = ["q-0-of-2.gguf", "q-1-of-2.gguf", "q-2-of-2.gguf"];
        assert_eq!(only(&ggufs(&both)), "q-*-of-2.gguf: parts beyond its 2: 0");
        assert_eq!(only(&ggufs(&["q-0-of-0.gguf"])), "q-*-of-0.gguf: parts beyond its 0: 0");
    }
}
