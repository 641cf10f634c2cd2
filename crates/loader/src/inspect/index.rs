//! Indices of weights, `*.safetensors.index.json` and `*.bin.index.json`: which file each tensor is in.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use manifest::{FilePath, MAX_FILES};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::listing::{Dir, DirFile, ModelFolder, Troubles, short, some_of};
use super::{safetensors, sets};

/// Over this, none is read: those of the largest models have 10 MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// Looks at the indices of one folder, and at what of its weights belongs together. `all` are the paths in the model.
pub(super) fn check(folder: &dyn ModelFolder, all: &HashSet<&str>, dir: &Dir<'_>, troubles: &mut Troubles) {
    let indices = dir.files.iter().filter(|file| is_index(file.name));
    let mut indexed = Indexed::default();
    let mut has_safetensors_index = false;
    for file in indices {
        has_safetensors_index |= is_safetensors_index(file.name);
        match read(folder, file) {
            Ok(names) => {
                check_names(file.path, dir.prefix, &names, all, troubles);
                if is_safetensors_index(file.name) && !names.is_empty() {
                    indexed.add(file.name, names, dir);
                }
            }
            Err(wrong) => troubles.add(format!("{} {wrong}", file.path)),
        }
    }
    let weights: Vec<&DirFile<'_>> =
        dir.files.iter().filter(|file| file.name.ends_with(safetensors::EXTENSION)).collect();
    match has_safetensors_index {
        true => indexed.check(dir, &weights, troubles),
        false => sets::check_safetensors(dir, &weights, troubles),
    }
}

/// What the indices of a folder name, but for those that cannot be read.
#[derive(Default)]
struct Indexed<'a> {
    indices: Vec<&'a str>,
    /// What the first one names.
    first: BTreeSet<String>,
    /// Whether another one names something else.
    is_several: bool,
    /// Files of the folder that any names. Not all names: they may be many more.
    files: HashSet<&'a str>,
}

impl<'a> Indexed<'a> {
    fn add(&mut self, index: &'a str, names: BTreeSet<String>, dir: &Dir<'a>) {
        let find = |name: &String| dir.files.binary_search_by_key(&name.as_str(), |file| file.name).ok();
        self.files.extend(names.iter().filter_map(find).map(|place| dir.files[place].name));
        self.indices.push(index);
        if self.indices.len() == 1 {
            self.first = names;
        } else {
            self.is_several |= names != self.first;
        }
    }

    fn check(&self, dir: &Dir<'_>, weights: &[&DirFile<'_>], troubles: &mut Troubles) {
        if self.indices.is_empty() {
            return;
        }
        let extra = weights.iter().filter(|file| !self.files.contains(file.name));
        let extra: Vec<&str> = extra.map(|file| file.path).collect();
        if !extra.is_empty() {
            let are = if extra.len() == 1 { "is" } else { "are" };
            troubles.add(format!(
                "{} {are} beside an index that does not name them: a runtime that loads every *.safetensors of a \
                 folder loads both",
                some_of(&extra)
            ));
        }
        if self.is_several {
            troubles.add(sets::several(dir, &self.indices));
        }
    }
}

/// Also those of variants: `model.safetensors.index.fp16.json`.
fn is_safetensors_index(name: &str) -> bool {
    name.ends_with(".json") && name.contains(".safetensors.index.")
}

fn is_index(name: &str) -> bool {
    is_safetensors_index(name) || (name.ends_with(".json") && name.contains(".bin.index."))
}

/// The names that an index has, or what is wrong with it.
fn read(folder: &dyn ModelFolder, file: &DirFile<'_>) -> Result<BTreeSet<String>, String> {
    if file.size_bytes > MAX_INDEX_BYTES {
        return Err(format!("has {} bytes, an index at most {MAX_INDEX_BYTES}", file.size_bytes));
    }
    let bytes = folder.read_start(file.place, MAX_INDEX_BYTES).ok_or("cannot be read")?;
    let index: Result<Index, _> = serde_json::from_slice(&bytes);
    index
        .map(|index| index.0)
        .map_err(|error| format!("is not an index of weights: {}", short(&error.to_string())))
}

fn check_names(
    path: &str,
    prefix: &str,
    names: &BTreeSet<String>,
    all: &HashSet<&str>,
    troubles: &mut Troubles,
) {
    if names.is_empty() {
        return troubles.add(format!("{path} is an index of no weights: its weight_map is empty"));
    }
    let (inside, outside): (Vec<&String>, Vec<_>) =
        names.iter().partition(|name| name.parse::<FilePath>().is_ok());
    if !outside.is_empty() {
        let shown: Vec<String> = outside.iter().map(|name| format!("\"{}\"", short(name))).collect();
        troubles.add(format!("{path} names what is no path below its folder: {}", some_of(&shown)));
    }
    let is_missing = |name: &&String| !all.contains(format!("{prefix}{name}").as_str());
    let missing: Vec<String> = inside.into_iter().filter(is_missing).map(|name| short(name)).collect();
    if !missing.is_empty() {
        troubles.add(format!("{path} names weights that are not there: {}", some_of(&missing)));
    }
}

/// The files that an index names.
struct Index(BTreeSet<String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(IndexVisitor)
    }
}

struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<WeightMap>()?).is_some() {
                return Err(A::Error::duplicate_field("weight_map"));
            }
        }
        found.map(|WeightMap(names)| Index(names)).ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

/// Of each tensor its file; only these are kept, and each of them once.
struct WeightMap(BTreeSet<String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a file for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut names = BTreeSet::new();
        let mut tensors = 0;
        while let Some((_, name)) = map.next_entry::<IgnoredAny, String>()? {
            tensors += 1;
            names.insert(name);
            if names.len() > MAX_FILES || tensors > safetensors::MAX_TENSORS {
                return Err(A::Error::custom("more files, or tensors, than a model has"));
            }
        }
        Ok(WeightMap(names))
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect::tests::{Memory, WEIGHTS, only};

    const INDEX: &str = "model.safetensors.index.json";
    const ONE: &str = r#"{"weight_map": {"a": "model.safetensors"}}"#;
    const TWO: &str = r#"{"metadata": {"total_size": 9}, "weight_map":
        {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;

    fn indexed(index: &str) -> Memory {
        Memory::new(&[(INDEX, index.as_bytes()), ("model.safetensors", WEIGHTS)])
    }

    fn parts(index: &str) -> Memory {
        Memory::new(&[
            (index, TWO.as_bytes()),
            ("model-00001-of-00002.safetensors", WEIGHTS),
            ("model-00002-of-00002.safetensors", WEIGHTS),
        ])
    }

    #[test]
    fn an_index_of_what_is_there_is_fine() {
        for folder in [indexed(ONE), parts(INDEX), parts("model.safetensors.index.fp16.json")] {
            assert!(folder.troubles().is_empty(), "{:?}", folder.troubles());
        }
    }

    #[test]
    fn what_is_no_index_is_told() {
        for index in
            ["", "{", "[]", "{}", r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 1}}"#, "{\"\u{1}\": 1}"]
        {
            assert!(only(&indexed(index)).contains("is not an index of weights"), "{index}");
        }
        let twice = r#"{"weight_map": {"a": "model.safetensors"}, "weight_map": {}}"#;
        assert!(only(&indexed(twice)).contains("duplicate field `weight_map`"));
        let bin = Memory::new(&[("pytorch_model.bin.index.json", b"{}")]);
        assert!(only(&bin).contains("missing field `weight_map`"));
    }

    #[test]
    fn an_index_of_too_many_files_or_tensors_is_told() {
        let many = |count: usize, name: &dyn Fn(usize) -> String| {
            let entries: Vec<String> = (0..count).map(|entry| format!("\"\":\"{}\"", name(entry))).collect();
            format!("{{\"weight_map\": {{{}}}}}", entries.join(","))
        };
        let same = |_| "model.safetensors".to_owned();
        assert!(indexed(&many(1_000_000, &same)).troubles().is_empty());
        assert!(only(&indexed(&many(1_000_001, &same))).contains("than a model has"));
        assert!(only(&indexed(&many(65_537, &|entry| entry.to_string()))).contains("than a model has"));
    }

    #[test]
    fn an_index_of_no_weights_is_told() {
        assert!(only(&indexed(r#"{"weight_map": {}}"#)).contains("of no weights"));
    }

    #[test]
    fn names_that_lead_outside_are_told_escaped() {
        for name in ["/etc/passwd", "../model.safetensors", "", "a//b", "a\\\\b", "x\\u001b[2J"] {
            let index = format!(r#"{{"weight_map": {{"a": "model.safetensors", "b": "{name}"}}}}"#);
            let trouble = only(&indexed(&index));
            assert!(trouble.contains("no path below its folder") && !trouble.contains('\u{1b}'), "{trouble}");
        }
    }

    #[test]
    fn files_that_are_not_there_are_told_in_one_sentence() {
        let index = r#"{"weight_map": {"a": "model.safetensors", "b": "1", "c": "2", "d": "3", "e": "4"}}"#;
        assert!(only(&indexed(index)).ends_with("weights that are not there: 1, 2, 3 and 1 more"));
    }

    #[test]
    fn names_are_relative_to_the_folder_of_the_index() {
        let below = Memory::new(&[
            ("vae/model.safetensors.index.json", ONE.as_bytes()),
            ("vae/model.safetensors", WEIGHTS),
        ]);
        assert!(below.troubles().is_empty());
        let above = Memory::new(&[
            ("vae/model.safetensors.index.json", ONE.as_bytes()),
            ("model.safetensors", WEIGHTS),
        ]);
        assert!(
            only(&above).contains("vae/model.safetensors.index.json names weights that are not there: model")
        );
        let bin = Memory::new(&[("pytorch_model.bin.index.json", br#"{"weight_map": {"a": "gone.bin"}}"#)]);
        assert!(only(&bin).contains("gone.bin"));
    }

    #[test]
    fn weights_that_no_index_names_are_told() {
        let beside = parts(INDEX).with("consolidated.safetensors", WEIGHTS);
        assert!(only(&beside).contains("consolidated.safetensors is beside an index"));
        // Another format, or another folder, is another matter.
        let elsewhere = parts(INDEX).with("vae/model.safetensors", WEIGHTS).with("pytorch_model.bin", b"x");
        assert!(elsewhere.troubles().is_empty());
    }

    #[test]
    fn two_indices_of_different_weights_are_told() {
        let index = br#"{"weight_map": {"a": "model.fp16.safetensors"}}"#;
        let two = parts(INDEX)
            .with("model.safetensors.index.fp16.json", index)
            .with("model.fp16.safetensors", WEIGHTS);
        assert!(only(&two).contains("several sets of weights"), "{:?}", two.troubles());
        let same = parts(INDEX).with("model.safetensors.index.again.json", TWO.as_bytes());
        assert!(same.troubles().is_empty());
    }

    #[test]
    fn an_index_that_cannot_be_read_or_is_too_large_is_told() {
        let folder = indexed(ONE);
        assert!(only(&folder.unreadable(INDEX)).contains("cannot be read"));
        assert!(only(&indexed(ONE).claiming(INDEX, 100_000_001)).contains("100000001 bytes"));
    }
}
