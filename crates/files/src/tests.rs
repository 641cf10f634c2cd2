use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    (dir, path)
}

fn refusal<T: std::fmt::Debug>(done: io::Result<T>) -> Refused {
    let error = done.unwrap_err();
    *error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()).unwrap_or_else(|| panic!("{error}"))
}

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_link_is_not_followed_by_anybody() {
    let (dir, path) = dir();
    let private = dir.path().join("private");
    put(&private, b"secret");
    symlink(&private, &path).unwrap();
    for opened in [open, open_to_change, open_or_create, open_to_lock] {
        assert_eq!(refusal(opened(Place::of(&path))), Refused::Link);
    }
    assert_eq!(refusal(create_dir(Place::of(&path))), Refused::Link);
    assert!(read(Place::of(&path), 100).is_err());
    // A file takes the place of the link, and what it named is as it was.
    replace(Place::of(&path), b"new", 0o644, true).unwrap();
    assert_eq!((fs::read(&private).unwrap(), fs::read(&path).unwrap()), (b"secret".into(), b"new".into()));
}

#[test]
fn below_its_base_no_directory_is_a_link_and_above_any_may_be() {
    let (dir, _) = dir();
    let real = dir.path().join("real/D");
    create_dir_all(&real).unwrap();
    put(&real.join("weights"), b"bytes");
    let (base, planted) = (dir.path().join("base"), dir.path().join("planted"));
    symlink(dir.path().join("real"), &base).unwrap();
    fs::create_dir(&planted).unwrap();
    symlink(&real, planted.join("D")).unwrap();
    assert!(open(Place::within(&base, &base.join("D/weights"))).is_ok());
    let through = planted.join("D/weights");
    assert_eq!(refusal(open(Place::within(&planted, &through))), Refused::Link);
    assert_eq!(refusal(replace(Place::within(&planted, &through), b"", 0o644, false)), Refused::Link);
    assert_eq!(fs::read(real.join("weights")).unwrap(), b"bytes");
}

#[test]
fn what_is_no_regular_file_is_named_and_never_waited_for() {
    let (_dir, path) = dir();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    for opened in [open, open_to_change, open_or_create, open_to_lock] {
        assert_eq!(refusal(opened(Place::of(&path))), Refused::Kind("a FIFO"));
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for opened in [open, open_to_change, open_or_create, open_to_lock] {
        assert_eq!(refusal(opened(Place::of(&path))), Refused::Kind("a directory"));
    }
    fs::remove_dir(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(refusal(open(Place::of(&path))), Refused::Kind("a socket"));
}

#[test]
fn what_has_other_names_is_read_and_not_written_to() {
    let (dir, path) = dir();
    put(&path, b"bytes");
    assert!(open_to_change(Place::of(&path)).is_ok());
    fs::hard_link(&path, dir.path().join("other")).unwrap();
    assert!(open(Place::of(&path)).is_ok());
    for opened in [open_to_change, open_or_create] {
        assert_eq!(refusal(opened(Place::of(&path))), Refused::ManyNames { names: 2 });
    }
}

#[test]
fn a_file_is_read_to_its_limit_and_a_byte_more() {
    let (_dir, path) = dir();
    assert_eq!(read(Place::of(&path), 4).unwrap(), None);
    put(&path, b"123456");
    assert_eq!(read(Place::of(&path), 4).unwrap().unwrap(), b"12345");
    assert_eq!(read(Place::of(&path), 6).unwrap().unwrap(), b"123456");
}

#[test]
fn a_file_is_created_once_and_whole() {
    let (dir, path) = dir();
    create_whole(Place::of(&path), b"one", 0o600).unwrap();
    let again = create_whole(Place::of(&path), b"two", 0o600).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(create_new(Place::of(&path)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"one");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
}

#[test]
fn a_group_may_write_where_it_may_above_and_the_world_never() {
    let (dir, _) = dir();
    for (above, created) in [(0o700, 0o755), (0o775, 0o775), (0o2775, 0o775), (0o777, 0o755), (0o1777, 0o755)]
    {
        fs::set_permissions(dir.path(), Permissions::from_mode(above)).unwrap();
        let path = dir.path().join(format!("{above:o}"));
        create_dir(Place::of(&path)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        // The umask of whoever runs this may take some away.
        assert_eq!(mode & !created, 0, "{above:o}: {mode:o}");
        create_private_dir(Place::of(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

/// As root only: others own what they create.
#[test]
fn what_root_creates_belongs_to_the_owner_of_the_directory() {
    let (dir, path) = dir();
    if !rustix::process::geteuid().is_root() {
        create_new(Place::of(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), fs::metadata(dir.path()).unwrap().uid());
        return;
    }
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65533)).unwrap();
    let at = |name: &str| dir.path().join(name);
    create_new(Place::of(&at("new"))).unwrap();
    open_or_create(Place::of(&at("opened"))).unwrap();
    open_to_lock(Place::of(&at("locked"))).unwrap();
    replace(Place::of(&at("replaced")), b"", 0o644, false).unwrap();
    create_whole(Place::of(&at("whole")), b"", 0o600).unwrap();
    create_dir_all(&at("one/two")).unwrap();
    for name in ["new", "opened", "locked", "replaced", "whole", "one", "one/two"] {
        let found = fs::metadata(at(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65533), "{name}");
    }
    // Which root may go on with, but not with what a third one has put there.
    assert!(open_to_change(Place::of(&at("new"))).is_ok());
    std::os::unix::fs::chown(at("new"), Some(1234), None).unwrap();
    assert_eq!(refusal(open_to_change(Place::of(&at("new")))), Refused::Foreign { owner: 1234, user: 0 });
    std::os::unix::fs::chown(at("one"), Some(1234), None).unwrap();
    let below = at("one/file");
    assert!(create_new(Place::within(dir.path(), &below)).is_err(), "nor below a directory of that one");
}
