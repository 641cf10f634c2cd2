//! The files and tensors of a folder, mapped.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::io::Write as _;

use loader::Selection;
use loader::encode::{Folder, Input, Options, publish};
use serde_json::json;
use store::{Cache, Model, TensorsError};

/// A safetensors file of tensors of bytes.
fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": offsets}),
        );
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn published(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    for (path, bytes) in files {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(bytes).unwrap();
    }
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let folder = Folder::list(&source, &Selection::default()).unwrap();
    let model = publish(&cache, &Input::Folder(folder), &Options::default(), &|_, _| ()).unwrap().model;
    (dir, model)
}

fn index(entries: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<_, _> =
        entries.iter().map(|(tensor, file)| ((*tensor).to_owned(), json!(file))).collect();
    json!({"metadata": {}, "weight_map": map}).to_string().into_bytes()
}

#[test]
fn files_are_told_and_mapped() {
    let (_dir, model) =
        published(&[("config.json", b"{}".to_vec()), ("a/b.bin", vec![7; 70_000]), ("empty", vec![])]);
    let files: Vec<_> = model.files().map(|file| (file.path, file.size_bytes, file.is_proven)).collect();
    // One file is more than parity could rebuild: they are rows, and only that nothing is nothing is proven.
    assert_eq!(files, [("a/b.bin", 70_000, false), ("config.json", 2, false), ("empty", 0, true)]);
    assert_eq!(model.file("config.json").unwrap().unwrap().as_ref(), b"{}");
    assert_eq!(model.file("a/b.bin").unwrap().unwrap().as_ref(), [7; 70_000]);
    assert!(model.file("empty").unwrap().unwrap().is_empty());
    assert!(model.file("a").unwrap().is_none() && model.file("../config.json").unwrap().is_none());
    assert!(model.weights().is_none() && model.is_complete());
    assert!(model.path().join("a/b.bin").is_file());
}

#[test]
fn tensors_of_all_files_are_found_without_a_copy() {
    let (_dir, model) = published(&[
        ("one.safetensors", safetensors(&[("a", &[1; 30]), ("none", &[])])),
        ("two.safetensors", safetensors(&[("b", &[2; 50])])),
        ("vae/one.safetensors", safetensors(&[("a", &[3; 9])])),
    ]);
    let tensors = model.tensors().unwrap();
    assert_eq!(tensors.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "none"]);
    let a = tensors.get("a").unwrap();
    assert_eq!((a.data(), a.shape()), (&[1; 30][..], &[30][..]));
    let mapped = a.file().as_ref().as_ptr_range();
    assert!(mapped.contains(&a.data().as_ptr()), "it lies in the map");
    assert!(tensors.get("none").unwrap().data().is_empty() && tensors.get("c").is_none());
    let kept = model.tensors_in("vae/").unwrap().get("a").unwrap().clone();
    drop(model);
    assert_eq!(kept.data(), [3; 9]);
}

#[test]
fn an_index_is_followed() {
    let files = |index| {
        [
            ("model.safetensors.index.json", index),
            ("one.safetensors", safetensors(&[("a", &[1; 30]), ("unused", &[9; 3])])),
            ("two.safetensors", safetensors(&[("a", &[2; 50])])),
        ]
    };
    let (_dir, model) = published(&files(index(&[("a", "two.safetensors")])));
    let tensors = model.tensors().unwrap();
    assert_eq!((tensors.len(), tensors.get("a").unwrap().data()), (1, &[2; 50][..]));
    let bad = |index| published(&files(index)).1.tensors().unwrap_err();
    assert!(matches!(bad(index(&[("b", "two.safetensors")])), TensorsError::NotInFile { .. }));
    assert!(matches!(bad(index(&[("a", "three.safetensors")])), TensorsError::Index { .. }));
    assert!(matches!(bad(index(&[("a", "../two.safetensors")])), TensorsError::Index { .. }));
    assert!(matches!(bad(b"[]".to_vec()), TensorsError::Index { .. }));
}

#[test]
fn what_is_ambiguous_or_no_tensors_is_told() {
    let twice = safetensors(&[("a", &[1; 30])]);
    let (_dir, model) = published(&[("one.safetensors", twice.clone()), ("two.safetensors", twice)]);
    assert!(matches!(model.tensors(), Err(TensorsError::Twice { .. })));
    let (_dir, model) = published(&[("one.safetensors", vec![255; 100]), ("x", vec![1])]);
    let error = model.tensors().unwrap_err();
    assert!(error.to_string().contains("one.safetensors"), "{error}");
    let (_dir, model) = published(&[("config.json", vec![1; 10])]);
    assert!(model.tensors().unwrap().is_empty());
}
