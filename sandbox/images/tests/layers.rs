//! What layers may hold: what becomes of it, and what is refused.

mod common;

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use assay_images::{ImageError, Limits};
use common::{Layer, Place};
use tar::EntryType;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Imports a shell and `layer`; returns the tree that became of it.
fn tree(place: &Place, layer: Layer) -> std::path::PathBuf {
    let image = place.import(&[Layer::with_shell().tar(), layer.tar()]).expect("an image");
    place.store.paths(&image).pop().expect("a layer")
}

#[test]
fn files_keep_content_time_and_whether_they_run() {
    let place = Place::new();
    let layer = Layer::new()
        .folder("a/")
        .file("a/plain", 0o600, b"text")
        .file("a/runs", 0o4711, b"#!/bin/sh")
        .file("./a/./dots", 0o777, b"")
        .file("made/for/it", 0o644, b"x")
        .link("link", "/etc/shadow")
        .link("up", "../../../../etc")
        .hard_link("same", "a/plain")
        .hard_link("same-link", "link")
        .raw(b"bytes-\xff\xfe\n", b"", b"not text", |_| {})
        .raw(b"owned", b"", b"", |header| {
            header.set_uid(1000);
            header.set_gid(33);
        });
    let tree = tree(&place, layer);
    let mode = |path: &str| fs::symlink_metadata(tree.join(path)).unwrap().mode() & 0o7777;
    for (path, expected) in [
        ("a", 0o755),
        ("a/plain", 0o644),
        ("a/runs", 0o755),
        ("a/dots", 0o755),
        ("made", 0o755),
        ("made/for/it", 0o644),
    ] {
        assert_eq!(mode(path), expected, "{path}");
    }
    let metadata = fs::metadata(tree.join("same")).unwrap();
    assert_eq!((metadata.nlink(), metadata.mtime()), (2, 1_000_000_000));
    assert_eq!(fs::read(tree.join("same")).unwrap(), b"text");
    assert_eq!(fs::read_link(tree.join("same-link")).unwrap(), Path::new("/etc/shadow"));
    assert_eq!(fs::read_link(tree.join("up")).unwrap(), Path::new("../../../../etc"));
    assert_eq!(fs::read(tree.join(OsStr::from_bytes(b"bytes-\xff\xfe\n"))).unwrap(), b"not text");
    let owned = fs::metadata(tree.join("owned")).unwrap();
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!((owned.uid(), owned.gid()), if is_root() { (1000, 33) } else { own });
}

#[test]
fn hides_what_lower_layers_have() {
    let place = Place::new();
    let layer = Layer::new()
        .folder("d/")
        .file("d/.wh.gone", 0o644, b"")
        .folder("new/")
        .file("new/.wh..wh..opq", 0o644, b"")
        .file("new/.wh.needless", 0o644, b"")
        .file("new/own", 0o644, b"")
        // Removed, and made anew as something else; in both orders.
        .file(".wh.again", 0o644, b"")
        .folder("again/")
        .file("kept", 0o644, b"mine")
        .file(".wh.kept", 0o644, b"")
        // What aufs left.
        .file(".wh..wh.plnk", 0o644, b"");
    let tree = tree(&place, layer);
    let is_whiteout = |path: &str| {
        let metadata = fs::symlink_metadata(tree.join(path)).unwrap();
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    };
    let is_opaque = |path: &str| {
        rustix::fs::getxattr(tree.join(path), "user.overlay.opaque", &mut [0u8; 4][..]) == Ok(1)
    };
    let names = |path: &str| {
        let entries = fs::read_dir(tree.join(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["again", "d", "kept", "new"]);
    assert!(is_whiteout("d/gone"));
    assert_eq!(names("new"), ["own"]);
    assert_eq!((is_opaque("new"), is_opaque("again"), is_opaque("d")), (true, true, false));
    assert_eq!(fs::read(tree.join("kept")).unwrap(), b"mine");
}

#[test]
fn leaves_out_what_a_sandbox_has_of_its_own() {
    let place = Place::new();
    let layer = Layer::new()
        .folder("dev/")
        .kind("dev/sda", "", EntryType::Block)
        .kind("dev/null", "", EntryType::Char)
        .file("proc/1/environ", 0o644, b"SECRET=1")
        .file("sys/x", 0o644, b"")
        .file("device", 0o644, b"")
        .extended(&[("SCHILY.xattr.user.overlay.opaque", b"y"), ("SCHILY.xattr.user.x", b"y")])
        .file("extended", 0o644, b"");
    let tree = tree(&place, layer);
    assert_eq!(fs::read_dir(tree.join("dev")).unwrap().count(), 0);
    assert!(!tree.join("proc").exists() && !tree.join("sys").exists());
    assert!(tree.join("device").exists());
    let xattrs = rustix::fs::listxattr(tree.join("extended"), &mut [0u8; 256][..]);
    assert_eq!(xattrs, Ok(0), "no extended attribute comes along");
}

/// A link leads where it would inside, so nothing comes to lie outside.
#[test]
fn links_lead_nowhere_outside() {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().to_owned();
    let layer = Layer::new()
        .folder("lib/")
        .link("lib64", "lib")
        .file("lib64/through", 0o644, b"")
        .folder(target.trim_start_matches('/'))
        .link("out", &target)
        .link("up", &format!("../../../../../../../../../..{target}"))
        .file("out/one", 0o644, b"")
        .file("up/two", 0o644, b"")
        // The link itself is replaced, not what it leads to.
        .link("swap", &format!("{target}/victim"))
        .file("swap", 0o644, b"own");
    fs::write(outside.join("victim"), b"untouched").unwrap();
    let tree = tree(&place, layer);
    assert!(tree.join("lib/through").exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    let inside = tree.join(target.trim_start_matches('/'));
    assert!(inside.join("one").exists() && inside.join("two").exists());
    assert_eq!(fs::read(tree.join("swap")).unwrap(), b"own");
}

/// Makes of a layer what is refused, and says what of it.
type Hostile = (&'static str, fn(Layer) -> Layer, &'static str);

#[test]
fn refuses_what_no_layer_needs() {
    let cases: [Hostile; 20] = [
        ("absolute", |l| l.raw(b"/etc/x", b"", b"", |_| {}), "`/etc/x`: an absolute path"),
        ("dots", |l| l.file("a/../../x", 0o644, b""), "`a/../../x`: a path with `..`"),
        ("only dots", |l| l.folder(".."), "a path with `..`"),
        (
            "dots in a name for terminals",
            |l| l.raw(b"\x1b[2J/..", b"", b"", |_| {}),
            r"`\x1b[2J/..`",
        ),
        ("hard link to outside", |l| l.hard_link("a", "../../etc/passwd"), "a path with `..`"),
        ("absolute hard link", |l| l.hard_link("a", "/etc/passwd"), "an absolute path"),
        ("hard link to nothing", |l| l.hard_link("a", "b"), "`b`, which the layer has not"),
        (
            "hard link through a link",
            |l| l.link("out", "/etc").hard_link("a", "out/passwd"),
            "which the layer has not",
        ),
        ("hard link to a folder", |l| l.folder("d").hard_link("a", "d"), "to a directory"),
        ("device", |l| l.kind("etc/null", "", EntryType::Char), "`etc/null`: a device"),
        ("block device", |l| l.kind("sda", "", EntryType::Block), "`sda`: a device"),
        ("pipe", |l| l.kind("pipe", "", EntryType::Fifo), "`pipe`: a pipe"),
        ("unknown", |l| l.kind("odd", "", EntryType::new(b'Z')), "`odd`: a kind of entry"),
        (
            "below a file",
            |l| l.file("f", 0o644, b"").file("f/x", 0o644, b""),
            "`f/x`: can't be made",
        ),
        ("below a loop", |l| l.link("a", "a").file("a/x", 0o644, b""), "`a/x`: can't be made"),
        ("below a dangling link", |l| l.link("a", "b").file("a/x", 0o644, b""), "leads nowhere"),
        (
            "file in the place of a folder",
            |l| l.folder("d/").file("d/x", 0o644, b"").file("d", 0o644, b""),
            "`d`: there twice",
        ),
        ("whiteout of itself", |l| l.file("d/.wh..", 0o644, b""), "hides nothing"),
        ("whiteout of all", |l| l.file(".wh..wh..opq", 0o644, b""), "hides all layers"),
        (
            "sparse",
            |l| {
                let extensions: [(&str, &[u8]); 2] =
                    [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"1099511627776")];
                l.extended(&extensions).file("huge", 0o644, b"")
            },
            "`huge`: a sparse file",
        ),
    ];
    for (name, make, expected) in cases {
        refused(name, &[make(Layer::with_shell()).tar()], expected);
    }
    let old_sparse = Layer::with_shell().raw(b"huge", b"", b"", |header| {
        header.set_entry_type(EntryType::GNUSparse);
        header.as_gnu_mut().unwrap().realsize.copy_from_slice(b"777777777777");
    });
    refused("old sparse", &[old_sparse.tar()], "sparse");
    let owner =
        Layer::with_shell().raw(b"x", b"", b"", |header| header.set_uid(u64::from(u32::MAX)));
    if is_root() {
        refused("no owner", &[owner.tar()], "no user id");
    }
}

fn refused(name: &str, layers: &[Vec<u8>], expected: &str) {
    let place = Place::new();
    match place.import(layers) {
        Err(ImageError::Refused(why)) => assert!(why.contains(expected), "{name}: {why}"),
        other => panic!("{name}: {other:?}"),
    }
    let left = place.holdings();
    assert!(left.iter().all(|left| left.starts_with("layers/")), "{name}: {left:?}");
}

#[test]
fn holds_to_limits() {
    let kib = Limits { bytes: 8 << 20, entries: 100 };
    let zeros = |mib: usize| vec![0u8; mib << 20];
    let many = (0..101).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), 0o644, b""));
    let deep = Layer::new().file(&"d/".repeat(45), 0o644, b"").file(&"e/".repeat(49), 0o644, b"");
    let deep = deep.file(&"f/".repeat(49), 0o644, b"");
    let gzip = |tar: Vec<u8>| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&tar).unwrap();
        gzip.finish().unwrap()
    };
    let names = |kind: u8| {
        // A name of 2 MiB, before a file.
        let long = vec![b'a'; 2 << 20];
        Layer::new()
            .raw(b"././@LongLink", b"", &long, |header| header.set_entry_type(EntryType::new(kind)))
            .file("x", 0o644, b"")
            .tar()
    };
    // 1 GiB of zeros behind the end of the archive.
    let trailer = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&Layer::new().tar()).unwrap();
        (0..1024).for_each(|_| gzip.write_all(&zeros(1)).unwrap());
        gzip.finish().unwrap()
    };
    for (name, blob, expected) in [
        ("a bomb", gzip(Layer::new().file("zeros", 0o644, &zeros(9)).tar()), "more bytes than"),
        (
            "a zstd bomb",
            zstd::encode_all(&*Layer::new().file("z", 0o644, &zeros(9)).tar(), 1).unwrap(),
            "more bytes than",
        ),
        ("many files", many.tar(), "more files than"),
        ("deep folders", deep.tar(), "more files than"),
        ("a long name", names(b'L'), "1 MiB of headers"),
        ("a long link", names(b'K'), "1 MiB of headers"),
        ("long extensions", names(b'x'), "1 MiB of headers"),
        (
            "a body that a link has not",
            {
                Layer::new()
                    .raw(b"l", b"t", &zeros(2), |h| h.set_entry_type(EntryType::Symlink))
                    .tar()
            },
            "1 MiB of headers",
        ),
        ("no end", trailer, "goes on after its end"),
    ] {
        let place = Place::new();
        let store = place.store.clone().with_limits(kib);
        let file = place.file("image.tar", &blob);
        match store.import(&file, None) {
            Err(ImageError::Refused(why)) => assert!(why.contains(expected), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(place.holdings().is_empty(), "{name}");
    }
}

#[test]
fn a_layer_hides_only_so_much() {
    let place = Place::new();
    // Names are kept in memory until the end of the layer.
    let name = |number: usize| format!("bin/.wh.{number:090}");
    let hiding = |names: usize| {
        let add = |layer: Layer, number| layer.file(&name(number), 0o644, b"");
        (0..names).fold(Layer::with_shell(), add).tar()
    };
    place.import(&[hiding(1_000)]).unwrap();
    let refused = place.import(&[hiding(120_000)]).unwrap_err().to_string();
    assert!(refused.contains("hides more than a layer may"), "{refused}");
}
