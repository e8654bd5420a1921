//! From files and folders to images: what is checked, and what stays behind when it is wrong.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use assay_images::{Digest, ImageError, ImageName, Limits, chain};
use common::{ARCHITECTURE, Layer, Layout, Place};
use serde_json::{Value, json};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

/// A folder as an uncompressed archive.
fn archive(folder: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", folder).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn takes_layouts_and_tarballs_in_every_form() {
    let place = Place::new();
    let layers = [Layer::with_shell().tar(), Layer::new().file("x", 0o644, b"x").tar()];
    let chain = chain(&layers.each_ref().map(Digest::of)).unwrap();
    let path = place.path("layout");
    Layout::of(&layers).write(&path);
    let packed = archive(&path);
    let forms = [
        ("folder", path),
        ("archive", place.file("a.tar", &packed)),
        ("archive, gzip", place.file("b.tar.gz", &gzip(&packed))),
        ("archive, zstd", place.file("c.tar.zst", &zstd::encode_all(&*packed, 1).unwrap())),
    ];
    for (form, path) in forms {
        let image = place.store.import(&path, Some(name("x"))).expect(form);
        assert_eq!((&image.digest, image.layers.len()), (&chain, 2), "{form}");
    }
    for (form, file, bytes) in [
        ("tarball", "plain.tar", layers[0].clone()),
        ("tarball, gzip", "zipped.tgz", gzip(&layers[0])),
        ("tarball, zstd", "small.tar.zst", zstd::encode_all(&*layers[0], 1).unwrap()),
    ] {
        let image = place.store.import(&place.file(file, &bytes), None).expect(form);
        assert_eq!(image.layers, [Digest::of(&layers[0])], "{form}");
        assert_eq!(Some(image.name.as_str()), file.split('.').next(), "{form}");
        assert_eq!(image.bytes, fs::metadata("/bin/sh").unwrap().len(), "{form}");
    }
    let listed = place.store.list().unwrap();
    let names: Vec<_> = listed.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["plain", "small", "x", "zipped"]);
    let held = place.holdings();
    let layers = held.iter().filter(|held| held.starts_with("layers/")).count();
    assert_eq!((held.len(), layers), (6, 2), "each layer is there once, nothing is left: {held:?}");
}

#[test]
fn layers_of_a_layout_may_be_compressed() {
    let place = Place::new();
    let layers = [Layer::with_shell().tar(), Layer::new().file("x", 0o644, b"x").tar()];
    let mut layout = Layout::of(&layers);
    let blobs = [gzip(&layers[0]), zstd::encode_all(&*layers[1], 1).unwrap()];
    for (number, blob) in blobs.iter().enumerate() {
        layout.layers[number] = layout.add(blob, "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    layout.write(&place.path("layout"));
    let image = place.store.import(&place.path("layout"), Some(name("x"))).unwrap();
    assert_eq!(image.layers, layers.each_ref().map(Digest::of));
}

/// Spoils a layout, and says what of it is refused.
type Spoilt = (&'static str, fn(&mut Layout), &'static str);

#[test]
fn refuses_a_layout_that_is_not_what_it_says() {
    fn blob(layout: &mut Layout, number: usize) -> &mut Vec<u8> {
        let digest: Digest =
            serde_json::from_value(layout.layers[number]["digest"].clone()).unwrap();
        layout.blobs.get_mut(&digest).unwrap()
    }
    let cases: [Spoilt; 13] = [
        ("another byte", |l| *blob(l, 0).last_mut().unwrap() ^= 1, "should be sha256:"),
        ("cut off", |l| blob(l, 0).truncate(1024), "should have"),
        ("another size", |l| l.layers[0]["size"] = json!(7), "should have 7"),
        ("missing blob", |l| l.layers[0]["digest"] = json!(Digest::of("?")), "is missing"),
        (
            "another diff id",
            |l| l.config["rootfs"]["diff_ids"][0] = json!(Digest::of("?")),
            "unpacked:",
        ),
        (
            "a digest that is a path",
            |l| l.layers[0]["digest"] = json!("sha256:../../x"),
            "not a digest",
        ),
        ("another algorithm", |l| l.layers[0]["digest"] = json!("sha512:00"), "not a digest"),
        (
            "fewer diff ids",
            |l| {
                l.config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
            },
            "2 layers",
        ),
        (
            "no layers",
            |l| {
                l.layers.clear();
                l.config["rootfs"]["diff_ids"] = json!([]);
            },
            "without layers",
        ),
        ("another machine", |l| l.config["architecture"] = json!("s390x"), "linux/s390x"),
        ("another system", |l| l.config["os"] = json!("windows"), "windows/"),
        (
            "another platform",
            |l| l.platform = Some(json!({"os": "linux", "architecture": "mips"})),
            "there are: linux/mips",
        ),
        (
            "encrypted",
            |l| {
                l.layers[0]["mediaType"] =
                    json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
            },
            "not supported",
        ),
    ];
    for (case, spoil, expected) in cases {
        let place = Place::new();
        let mut layout = Layout::of(&[Layer::with_shell().tar(), Layer::new().folder("d").tar()]);
        spoil(&mut layout);
        let path = place.path("layout");
        layout.write(&path);
        refused(&place, &path, case, expected);
        let left = place.holdings();
        assert!(left.iter().all(|left| left.starts_with("layers/")), "{case}: {left:?}");
    }
}

fn refused(place: &Place, path: &Path, case: &str, expected: &str) {
    match place.store.import(path, Some(name("x"))) {
        Err(ImageError::Refused(why)) => assert!(why.contains(expected), "{case}: {why}"),
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn a_spoilt_manifest_or_configuration_is_seen() {
    let place = Place::new();
    for kind in ["config", "layers"] {
        let path = place.path(kind);
        Layout::of(&[Layer::with_shell().tar()]).write(&path);
        let blobs =
            fs::read_dir(path.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
        let is_it = |path: &Path| {
            serde_json::from_slice::<Value>(&fs::read(path).unwrap()).is_ok_and(|document| {
                document.get(kind).is_some() || document.get("rootfs").is_some() && kind == "config"
            })
        };
        let blob = blobs.into_iter().find(|path| is_it(path)).unwrap();
        let text = fs::read_to_string(&blob).unwrap();
        // As long as before, and as right as before but for the digest.
        fs::write(
            &blob,
            text.replacen("linux", "Linux", 1).replacen(
                "schemaVersion\":2",
                "schemaVersion\":3",
                1,
            ),
        )
        .unwrap();
        refused(&place, &path, kind, "should be sha256:");
    }
}

#[test]
fn chooses_this_machine_s_image_of_an_index() {
    let place = Place::new();
    let mut layout = Layout::of(&[Layer::with_shell().tar()]);
    let config = layout.config.to_string();
    let config = layout.add(config.as_bytes(), "c");
    let layers = layout.layers.clone();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let platform = |mut descriptor: Value, architecture: &str| {
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    };
    let ours = platform(layout.add(manifest.as_bytes(), "m"), ARCHITECTURE);
    let other = platform(layout.add(b"never read", "m"), "s390x");
    let inner = json!({ "schemaVersion": 2, "manifests": [other, ours] }).to_string();
    let mut index = layout.add(inner.as_bytes(), "application/vnd.oci.image.index.v1+json");
    index["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/app:1" });
    layout.write_index(&place.path("layout"), vec![index]);
    let image = place.store.import(&place.path("layout"), None).unwrap();
    assert_eq!((image.name.as_str(), image.layers.len()), ("app:1", 1));

    let mut two = Layout::of(&[Layer::with_shell().tar()]);
    let manifests = ["a", "b"].map(|text| two.add(text.as_bytes(), "m"));
    two.write_index(&place.path("two"), manifests.to_vec());
    refused(&place, &place.path("two"), "two", "2 images");
}

#[test]
fn refuses_what_is_no_root_filesystem() {
    let place = Place::new();
    let shell = fs::read("/bin/sh").unwrap();
    let mut foreign = shell.clone();
    foreign[18] = 0xf3; // EM_RISCV
    let with = |layer: Layer| layer.tar();
    let cut = Layer::with_shell().tar();
    let zipped = gzip(&cut);
    for (case, bytes, expected) in [
        ("no shell", with(Layer::new().file("bin/cat", 0o755, b"x")), "there is no /bin/sh"),
        (
            "a shell for another machine",
            with(Layer::new().file("bin/sh", 0o755, &foreign)),
            "no program for",
        ),
        (
            "a shell of text",
            with(Layer::new().file("bin/sh", 0o755, b"#!/bin/bash")),
            "is no program",
        ),
        (
            "a shell that leads nowhere",
            with(Layer::new().link("bin/sh", "dash")),
            "there is no /bin/sh",
        ),
        (
            "a shell that leads to itself",
            with(Layer::new().link("bin/sh", "sh")),
            "there is no /bin/sh",
        ),
        ("a folder for a shell", with(Layer::new().folder("bin/sh/")), "there is no /bin/sh"),
        ("nothing", Vec::new(), "cut off"),
        ("text", b"hello".repeat(500), "damaged"),
        ("cut off after a file", cut[..cut.len() - 1024].to_vec(), "cut off"),
        ("cut off in a file", cut[..4096].to_vec(), "cut off in the middle"),
        ("gzip, cut off", zipped[..zipped.len() - 9].to_vec(), ""),
        (
            "gzip, damaged",
            {
                let mut z = zipped;
                let at = z.len() / 2;
                z[at] ^= 0x55;
                z
            },
            "",
        ),
    ] {
        refused(&place, &place.file("image.tar", &bytes), case, expected);
        assert!(place.holdings().is_empty(), "{case}");
    }
    fs::create_dir(place.path("empty")).unwrap();
    let empty = place.store.import(&place.path("empty"), Some(name("x"))).unwrap_err();
    assert!(empty.to_string().contains("manifest.json"), "{empty}");
    for (file, expected) in [("python.tar", "`python` can't be"), ("a b.tar", "--name")] {
        match place.store.import(&place.file(file, &Layer::with_shell().tar()), None) {
            Err(ImageError::Refused(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn finds_the_shell_through_layers_and_links() {
    let shell = fs::read("/bin/sh").unwrap();
    let busybox = || Layer::new().file("usr/bin/busybox", 0o755, &shell);
    let merged = || busybox().link("bin", "usr/bin").link("usr/bin/sh", "/bin/./../bin/busybox");
    let hidden = |layer: Layer| vec![merged().tar(), layer.tar()];
    for (case, layers, there) in [
        ("one", vec![merged().tar()], true),
        (
            "two",
            vec![busybox().tar(), Layer::new().link("bin/sh", "../usr/bin/busybox").tar()],
            true,
        ),
        ("removed", hidden(Layer::new().file("usr/bin/.wh.busybox", 0o644, b"")), false),
        ("folder removed", hidden(Layer::new().file("usr/.wh.bin", 0o644, b"")), false),
        ("folder made anew", hidden(Layer::new().file("usr/bin/.wh..wh..opq", 0o644, b"")), false),
        ("hidden by a file", hidden(Layer::new().file("usr", 0o644, b"")), false),
        ("beside it", hidden(Layer::new().folder("usr/").folder("usr/bin/")), true),
    ] {
        let imported = Place::new().import(&layers);
        assert_eq!(imported.is_ok(), there, "{case}: {imported:?}");
    }
}

#[test]
fn layers_are_shared_and_go_with_the_last_image() {
    let place = Place::new();
    let base = Layer::with_shell().tar();
    let own = Layer::new().file("x", 0o644, b"x").tar();
    let both = place.import(&[base.clone(), own]).unwrap();
    let file = place.file("base.tar", &base);
    let alone = place.store.import(&file, None).unwrap();
    assert_eq!(place.store.paths(&both)[0], place.store.paths(&alone)[0]);

    // A service that runs keeps everything there.
    let lock = place.store.lock().unwrap();
    assert_eq!(place.store.remove(&both.name).unwrap().layers, None);
    assert!(place.store.paths(&both).iter().all(|path| path.is_dir()));
    drop(lock);
    let gone = place.store.remove(&both.name).unwrap_err();
    assert_eq!(gone.to_string(), "no image `test` (there are: base)");
    let again = place.store.import(&file, Some(name("again"))).unwrap();
    assert_eq!(place.store.remove(&again.name).unwrap().layers, Some(1));
    assert_eq!(place.store.remove(&alone.name).unwrap().layers, Some(1));
    assert!(place.holdings().is_empty(), "{:?}", place.holdings());
}

#[test]
fn a_record_that_cannot_be_read_keeps_its_layers() {
    let place = Place::new();
    let tar = |content| Layer::with_shell().file("x", 0o644, content).tar();
    let one = place.store.import(&place.file("one.tar", &tar(b"1")), None).unwrap();
    let two = place.store.import(&place.file("two.tar", &tar(b"2")), None).unwrap();
    // As a disk that fails: nobody reads a folder, root neither.
    let (record, aside) = (place.path("cache/images/names/one.json"), place.path("aside"));
    fs::rename(&record, &aside).unwrap();
    fs::create_dir(&record).unwrap();
    assert_eq!(place.store.remove(&two.name).unwrap().layers, None);
    fs::remove_dir(&record).unwrap();
    fs::rename(&aside, &record).unwrap();
    assert!(place.store.paths(&one)[0].is_dir());
    assert_eq!(place.store.remove(&one.name).unwrap().layers, Some(2));
    assert!(place.holdings().is_empty(), "{:?}", place.holdings());
}

#[test]
fn a_name_that_nobody_gave_replaces_no_image() {
    let place = Place::new();
    let tar = |content| Layer::with_shell().file("x", 0o644, content).tar();
    let layout = |folder: &str, content| {
        let path = place.path(folder);
        fs::create_dir_all(&path).unwrap();
        Layout::of(&[tar(content)]).write(&path.join("app"));
        path.join("app")
    };
    let (old, new) = (layout("old", b"1"), layout("new", b"2"));
    let tarball = |folder: &str, content| place.file(&format!("{folder}/app.tar"), &tar(content));
    let (old_tar, new_tar) = (tarball("old", b"1"), tarball("new", b"2"));
    let first = place.store.import(&old, None).unwrap();
    assert_eq!(first.name.as_str(), "app");
    let before = place.holdings();
    for path in [&new, &new_tar] {
        let refused = place.store.import(path, None).unwrap_err().to_string();
        assert!(refused.contains("there is another image `app`"), "{refused}");
        assert_eq!(place.holdings(), before);
    }
    for path in [&old, &old_tar] {
        assert_eq!(place.store.import(path, None).unwrap().digest, first.digest);
    }
    let replaced = place.store.import(&new, Some(name("app"))).unwrap();
    assert_ne!(replaced.digest, first.digest);
    assert_eq!(place.store.list().unwrap(), [replaced]);
}

#[test]
fn what_a_crash_left_is_no_layer_and_goes() {
    let place = Place::new();
    let layer = Layer::with_shell().tar();
    // As far as an import comes before it is killed: half a tree, under no digest.
    let half = place.path("cache/images/staging/half/tree/bin");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("sh"), b"half").unwrap();
    let image = place.import(&[layer]).unwrap();
    let tree = &place.store.paths(&image)[0];
    assert_eq!(fs::read(tree.join("bin/sh")).unwrap(), fs::read("/bin/sh").unwrap());
    assert!(!half.exists());

    // A record without its layer is no image.
    fs::remove_dir_all(tree.parent().unwrap()).unwrap();
    assert!(place.store.list().unwrap().is_empty());
    fs::write(place.path("cache/images/names/odd.json"), b"{").unwrap();
    assert!(place.store.list().unwrap().is_empty());
}

#[test]
fn many_may_import_the_same_at_once() {
    let place = Place::new();
    Layout::of(&[Layer::with_shell().tar()]).write(&place.path("layout"));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let place = &place;
            let import = move || {
                let name = name(&format!("n{number}"));
                place.store.import(&place.path("layout"), Some(name)).unwrap()
            };
            scope.spawn(import);
        }
    });
    assert_eq!(place.store.list().unwrap().len(), 8);
    assert_eq!(place.holdings().len(), 9, "one layer");
}

#[test]
fn a_full_disk_is_no_fault_of_the_image() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let place = Place::new();
    let cache = place.path("cache");
    fs::create_dir(&cache).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&cache).status();
    assert!(mounted.unwrap().success());
    let file = place.file("image.tar", &Layer::with_shell().file("x", 0o644, &[1; 1 << 20]).tar());
    let full = place.store.import(&file, None);
    let left = place.holdings();
    let unmounted = Command::new("umount").arg(&cache).status();
    assert!(unmounted.unwrap().success());
    let Err(ImageError::Io { source, .. }) = full else { panic!("{full:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(left.is_empty(), "{left:?}");
}

/// What the engine of this machine writes, as it is.
#[test]
fn takes_what_docker_saves() {
    let place = Place::new();
    let save = |image: &str, file: &Path| {
        let mut save = Command::new("docker");
        save.args(["save", image, "-o"]).arg(file).stderr(Stdio::null()).stdout(Stdio::null());
        save.status().is_ok_and(|status| status.success())
    };
    let file = place.path("saved.tar");
    if !save("assay-python:1", &file) {
        println!("skipped: no Docker engine with `assay-python:1`; `make docker`");
        return;
    }
    let image = place.store.import(&file, None).unwrap();
    assert_eq!(image.name.as_str(), "assay-python:1");
    let tree = place.store.paths(&image).remove(0);
    assert!(tree.join("usr/bin/python3").exists());
    let small = place.store.clone().with_limits(Limits { bytes: 1 << 20, entries: 100_000 });
    let refused = small.import(&file, None).unwrap_err().to_string();
    assert!(refused.contains("more bytes than"), "{refused}");
}
