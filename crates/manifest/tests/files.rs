//! The files of a model: which paths there may be, which go together, and what their bytes are.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;
#[path = "common/named.rs"]
mod named;

use common::{ROWS, list, plain, uniform};
use manifest::{
    ByteRange, Codec, Digest, FileEntry, FilePath, MAX_FILES, Manifest, ManifestError, PathError,
};
use named::files;
use proptest::prelude::*;

/// Ten bytes, as layers of 7 and 3.
fn layers() -> Manifest {
    let shards = list(&[b"layer 1", b"two"], &[]);
    Manifest::new("simplenet".into(), 10, shards, 3, 0, Codec::Rs, None).unwrap()
}

fn file(path: &str, size_bytes: u64) -> FileEntry {
    FileEntry { path: path.parse().unwrap(), size_bytes, sha256: Digest::of(path.as_bytes()) }
}

#[test]
fn paths_that_systems_or_people_trip_over_are_refused() {
    let long = |bytes| "x".repeat(bytes);
    let deep = |parts: usize| vec!["d"; parts].join("/");
    let refused: [(&str, PathError); 21] = [
        ("", PathError::EmptyPart),
        ("/etc/passwd", PathError::Absolute),
        ("a//b", PathError::EmptyPart),
        ("a/", PathError::EmptyPart),
        (".", PathError::Reserved { part: "." }),
        ("a/./b", PathError::Reserved { part: "." }),
        ("..", PathError::Reserved { part: ".." }),
        ("a/../../b", PathError::Reserved { part: ".." }),
        (".git", PathError::Reserved { part: ".git" }),
        (".GIT/config", PathError::Reserved { part: ".git" }),
        ("a/.Git", PathError::Reserved { part: ".git" }),
        ("a\0b", PathError::Character { found: '\0' }),
        ("a\nb", PathError::Character { found: '\n' }),
        ("a\u{1b}[31m", PathError::Character { found: '\u{1b}' }),
        ("a\u{7f}", PathError::Character { found: '\u{7f}' }),
        ("a\u{85}", PathError::Character { found: '\u{85}' }),
        ("a\\b", PathError::Character { found: '\\' }),
        ("C:\\x", PathError::Character { found: '\\' }),
        (&long(256), PathError::LongPart { found_bytes: 256 }),
        (&deep(33), PathError::TooDeep { found: 33 }),
        (
            &[long(255), long(255), long(255), long(255), long(1)].join("/"),
            PathError::TooLong { found_bytes: 1025 },
        ),
    ];
    for (path, expected) in refused {
        assert_eq!(path.parse::<FilePath>().unwrap_err(), expected, "{path:?}");
        let json = serde_json::json!(path).to_string();
        let json = String::from_utf8(layers().with_files(vec![file("X", 10)]).unwrap().to_json())
            .unwrap()
            .replace("\"X\"", &json);
        let error = Manifest::parse(json.as_bytes()).unwrap_err();
        assert!(
            matches!(&error, ManifestError::BadPath { field, source, .. }
            if field == "files[0].path" && *source == expected),
            "{path:?}: {error}"
        );
    }
    let taken = [
        "a",
        "...",
        "..a",
        "a..",
        ".gitignore",
        "a/.github/b",
        "with space",
        "\"quoted\"",
        "\u{1f600}",
        "é",
        "-",
        "~",
        "con",
        "a:b",
        "*",
        "\u{202e}x",
        &long(255),
        &deep(32),
        &[long(255), long(255), long(255), long(256 - 1)].join("/"),
    ]
    .map(|path| {
        path.parse::<FilePath>().map(|path| path.to_string()).map_err(|error| format!("{path}: {error}"))
    });
    for path in taken {
        path.unwrap();
    }
}

#[test]
fn names_that_a_file_system_takes_for_the_same_are_refused() {
    for (one, other) in [
        ("a", "a"),
        ("Config.json", "config.JSON"),
        ("\u{e9}", "e\u{301}"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b", "A/c"),
        ("a/b", "A"),
        ("\u{212b}/x", "\u{e5}/y"),
        ("x/\u{3c2}", "x/\u{3a3}"),
    ] {
        let error = layers().with_files(vec![file(one, 4), file(other, 6)]).unwrap_err();
        assert!(
            matches!(error, ManifestError::SameName { file: 1, first_file: 0, .. }),
            "{one} {other}: {error}"
        );
    }
    for (one, other) in [("a", "b"), ("a/b", "a/c"), ("a/b/c", "a/c/b"), ("\u{df}", "ss"), ("a/b", "ab")] {
        layers().with_files(vec![file(one, 4), file(other, 6)]).unwrap();
    }
}

#[test]
fn files_are_the_weights_one_after_the_other() {
    let parts = [("a/config.json", 2), ("empty", 0), ("b.bin", 8)];
    let entry = |(path, size_bytes): (&str, u64)| FileEntry {
        sha256: if size_bytes == 0 { Digest::of(b"") } else { Digest::of(path.as_bytes()) },
        ..file(path, size_bytes)
    };
    let model = uniform().with_files(parts.map(entry).into()).unwrap();
    let ranges = [(0, 2), (2, 2), (2, 10)].map(|(start, end)| ByteRange::new(start, end));
    for ((file, (path, size_bytes)), range) in model.files().iter().zip(parts).zip(ranges) {
        assert_eq!((file.path().as_str(), file.size_bytes(), file.range()), (path, size_bytes, range));
        assert_eq!(model.shard_of_file(file), None, "they are no shards");
    }
    assert_eq!(Manifest::parse(&model.to_json()).unwrap(), model);
    assert!(uniform().files().is_empty(), "weights without a name");

    for sizes in [&[][..], &[9], &[11], &[5, 6], &[10, 1]] {
        let files = sizes.iter().zip(["a", "b"]).map(|(size, path)| file(path, *size)).collect();
        let error = layers().with_files(files).unwrap_err();
        let found = sizes.iter().sum::<u64>();
        assert!(
            matches!(error, ManifestError::FileSizes { found_bytes, total_bytes: 10 } if found_bytes == found),
            "{sizes:?}: {error}"
        );
    }
    let huge = vec![file("a", (1 << 48) + 1)];
    assert!(matches!(layers().with_files(huge), Err(ManifestError::OutOfRange { .. })));
}

#[test]
fn a_file_that_is_a_shard_is_proven_and_one_that_contradicts_it_refused() {
    let named = files(&[("1", b"layer 1"), ("e", b""), ("2", b"two")]);
    let model = layers().with_files(named.clone()).unwrap();
    let shards: Vec<_> = model.files().iter().map(|file| model.shard_of_file(file)).collect();
    assert_eq!(shards, [Some(0), None, Some(1)]);
    for (index, found) in
        [(0_u32, Digest::of(b"another")), (1, Digest::of(b"not empty")), (2, Digest::of(b"2"))]
    {
        let mut wrong = named.clone();
        wrong[index as usize].sha256 = found;
        let error = layers().with_files(wrong).unwrap_err();
        assert!(
            matches!(error, ManifestError::FileDigest { file, found: told, .. } if file == index && told == found),
            "{error}"
        );
    }
    // A row with padding is not the file.
    let rows = Manifest::new("simplenet".into(), 10, list(&ROWS, &[]), 3, 0, Codec::Rs, None).unwrap();
    let rows = rows.with_files(files(&[("a", b"aaaa"), ("b", b"bbbb"), ("c", b"cc")])).unwrap();
    let shards: Vec<_> = rows.files().iter().map(|file| rows.shard_of_file(file)).collect();
    assert_eq!(shards, [Some(0), Some(1), None]);
}

#[test]
fn what_is_no_list_of_files_is_refused_with_its_field() {
    let json = String::from_utf8(layers().with_files(vec![file("X", 10)]).unwrap().to_json()).unwrap();
    let (start, end) = (json.find("\"files\": ").unwrap() + 9, json.find(", \"merkle_root\"").unwrap());
    let digest = Digest::of(b"X");
    for (files, expected) in [
        ("null".to_owned(), "`files` is null, expected a list of objects"),
        ("{}".to_owned(), "`files` is an object, expected a list of objects"),
        ("[]".to_owned(), "the sizes of `files` add up to 0, expected `total_size`, 10"),
        ("[1]".to_owned(), "`files[0]` is the number 1, expected an object"),
        (
            format!("[{{\"path\": 1, \"sha256\": \"{digest}\", \"size\": 10}}]"),
            "`files[0].path` is the number 1",
        ),
        (format!("[{{\"sha256\": \"{digest}\", \"size\": 10}}]"), "`files[0].path` is missing"),
        ("[{\"path\": \"X\", \"size\": 10}]".to_owned(), "`files[0].sha256` is missing"),
        (format!("[{{\"path\": \"X\", \"sha256\": \"{digest}\"}}]"), "`files[0].size` is missing"),
        (
            format!("[{{\"path\": \"X\", \"path\": \"X\", \"sha256\": \"{digest}\", \"size\": 10}}]"),
            "`files[0].path` is there twice",
        ),
        (
            format!("[{{\"path\": \"X\", \"sha256\": \"{digest}\", \"size\": -1}}]"),
            "`files[0].size` is the number -1",
        ),
        (
            format!("[{{\"path\": \"X\", \"sha256\": \"{digest}\", \"size\": 10.0}}]"),
            "`files[0].size` is the floating-point number 10.0",
        ),
    ] {
        let json = format!("{}{files}{}", &json[..start], &json[end..]);
        let error = Manifest::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{files}: {error}");
    }
}

#[test]
fn there_are_bounds_to_how_many_files_and_folders_there_are() {
    let sized = |count: usize| plain(count as u64, 1, &[count as u64]).unwrap();
    let flat = |count: usize| (0..count).map(|number| file(&number.to_string(), 1)).collect::<Vec<_>>();
    sized(MAX_FILES).with_files(flat(MAX_FILES)).unwrap();
    let error = sized(MAX_FILES + 1).with_files(flat(MAX_FILES + 1)).unwrap_err();
    assert!(matches!(error, ManifestError::FileCount { .. }), "{error}");
    let nested = |count: usize| {
        let path = |number: usize| {
            let folders: Vec<String> = (0..31).map(|depth| format!("{depth}-{number}")).collect();
            file(&format!("{}/f", folders.join("/")), 1)
        };
        (0..count).map(path).collect::<Vec<_>>()
    };
    sized(2000).with_files(nested(2000)).unwrap();
    let error = sized(2200).with_files(nested(2200)).unwrap_err();
    assert!(matches!(error, ManifestError::FolderCount { .. }), "{error}");
}

proptest! {
    #[test]
    fn whatever_is_a_path_stays_within_its_folder(path in "\\PC{0,40}|([a-z./]{0,3}/){0,6}[a-z.]{0,4}") {
        if let Ok(path) = path.parse::<FilePath>() {
            let joined = std::path::Path::new("/root").join(path.as_str());
            prop_assert!(joined.components().skip(2).all(|part| matches!(part, std::path::Component::Normal(_))));
            prop_assert_eq!(joined.strip_prefix("/root").unwrap().to_str().unwrap(), path.as_str());
        }
    }

    #[test]
    fn files_survive_their_text(sizes in prop::collection::vec(0_u64..5, 1..20), names in prop::collection::hash_set("[a-z]{1,8}", 20)) {
        let total: u64 = sizes.iter().sum();
        prop_assume!(total > 0);
        let entry = |(name, size): (&String, &u64)| FileEntry {
            sha256: if *size == 0 { Digest::of(b"") } else { Digest::of(name.as_bytes()) },
            ..file(name, *size)
        };
        let files: Vec<_> = names.iter().zip(&sizes).map(entry).collect();
        // One file alone would be the shard, and contradict its digest.
        let model = plain(total, 1, &[total]).unwrap();
        if let Ok(model) = model.with_files(files) {
            prop_assert_eq!(Manifest::parse(&model.to_json()).unwrap(), model);
        }
    }
}
