//! Files of a crate that use one another in a circle, so that none of them can be understood first.

mod uses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use self::uses::Uses;

/// The folders of the crates that are held free of circles.
const CRATES: [&str; 12] = [
    "bin",
    "crates/chain-reader",
    "crates/demo",
    "crates/files",
    "crates/loader",
    "crates/manifest",
    "crates/node",
    "crates/p2p-blob",
    "crates/panel",
    "crates/planner",
    "crates/sim",
    "crates/store",
];

/// Fails when files of a crate use one another in a circle, and names each.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut found = String::new();
    for folder in CRATES {
        let sources = root.join(folder).join("src");
        for circle in circles(&uses::of(&sources)?) {
            found.push_str(&format!("\n  {folder}/src: {circle}"));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("files use one another in a circle (each arrow bears an item that is used):{found}")
}

/// The shortest circle of each file that is in none of those before, as text.
fn circles(uses: &Uses) -> Vec<String> {
    let (mut named, mut found) = (BTreeSet::new(), Vec::new());
    for start in uses.keys() {
        if named.contains(start) {
            continue;
        }
        let Some(circle) = circle_from(uses, start) else { continue };
        let mut text = start.display().to_string();
        for (file, next) in circle.iter().zip(circle.iter().skip(1)) {
            text.push_str(&format!(" -{}-> {}", uses[*file][*next], next.display()));
        }
        named.extend(circle);
        found.push(text);
    }
    found
}

/// The shortest way from a file to itself, which it begins and ends with.
fn circle_from<'a>(uses: &'a Uses, start: &'a PathBuf) -> Option<Vec<&'a PathBuf>> {
    let mut came_from: BTreeMap<&PathBuf, &PathBuf> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for next in uses.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut way = vec![start, file];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        circles(&uses::of(dir.path()).unwrap())
    }

    #[test]
    fn a_circle_is_named_in_order_with_an_item_for_each_arrow() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use c::C;"),
            ("a.rs", "use crate::b::{self}; pub struct A; fn f() { b::g(); }"),
            ("b/mod.rs", "mod d; pub use d::g;"),
            ("b/d.rs", "pub fn g() { println!(\"{}\", crate::C::new()); }"),
            ("c.rs", "#[arg(env = super::a::A)] pub struct C;"),
        ];
        assert_eq!(found(&files), ["a.rs -g-> b/d.rs -C-> c.rs -A-> a.rs"]);
    }

    #[test]
    fn tests_declarations_and_other_crates_make_no_circle() {
        let files = [
            ("main.rs", "mod a; mod b; fn main() { a::run(); }"),
            ("a.rs", "use crate::b::*; pub fn run() { go(); } pub struct A; mod inner { pub use super::A; }"),
            (
                "b.rs",
                "use ::a::A; use b::B; pub fn go() {} impl B { #[cfg(test)] fn t(_: crate::a::A) {} }
                #[cfg(test)] mod tests { use crate::a::A; }",
            ),
        ];
        assert_eq!(found(&files), [""; 0]);
        let with_use = [files[0], files[1], ("b.rs", "pub fn go(_: crate::a::inner::A) {}")];
        assert_eq!(found(&with_use), ["a.rs -go-> b.rs -A-> a.rs"]);
    }
}
