//! Images of several layers, as `assay-images` unpacks them.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use assay_images::{Digest, Image, Store};
use assay_sandbox::{Backend, BackendError, ImageRef, Layer, SandboxSpec, Start, Termination};
use tar::{Builder, EntryType, Header};

use crate::{
    common::{
        Fixture, file, files, is_root, native, native_of_one_slot, rootfs, sh, spec, stdout, told,
    },
    warm,
};

type Tar = Builder<Vec<u8>>;

/// Adds a file, or by a name that ends in `/` a folder.
fn add(tar: &mut Tar, path: &str, owner: u64, mode: u32, content: &str) {
    let mut header = Header::new_gnu();
    let kind = if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    tar.append_data(&mut header, path, content.as_bytes()).expect("an entry");
}

/// The root filesystem with a few files more.
fn base() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", rootfs().expect("a root filesystem")).expect("a tar");
    for name in ["removed", "kept/removed", "kept/stays", "opaque/old", "again/old"] {
        add(&mut tar, &format!("t/{name}"), 0, 0o644, "old");
    }
    add(&mut tar, "t/changed", 0, 0o644, "old");
    add(&mut tar, "t/mine", 1000, 0o600, "mine");
    add(&mut tar, "t/runs", 33, 0o4711, "#!/bin/sh\nid -u\n");
    tar.into_inner().expect("a tar")
}

fn upper() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for name in [".wh.removed", "kept/.wh.removed", "opaque/.wh..wh..opq", ".wh.again"] {
        add(&mut tar, &format!("t/{name}"), 0, 0o644, "");
    }
    for name in ["opaque/new", "again/new", "changed"] {
        add(&mut tar, &format!("t/{name}"), 0, 0o644, "new");
    }
    tar.into_inner().expect("a tar")
}

/// Imports layers in the form that `docker save` has had for long.
fn import(folder: &Path, layers: &[Vec<u8>]) -> (Store, Image) {
    let at = folder.join("saved");
    fs::create_dir(&at).expect("a folder");
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    let config =
        serde_json::json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
    let config = config.to_string();
    let name = format!("{}.json", Digest::of(&config).hex());
    let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    for (name, layer) in names.iter().zip(layers) {
        fs::write(at.join(name), layer).expect("a layer");
    }
    fs::write(at.join(&name), config).expect("a configuration");
    let manifest = serde_json::json!([{ "Config": name, "Layers": names, "RepoTags": ["t:1"] }]);
    fs::write(at.join("manifest.json"), manifest.to_string()).expect("a manifest");
    let store = Store::below(&folder.join("cache"));
    let image = store.import(&at, None).expect("an image");
    (store, image)
}

/// Describes a sandbox on the layers that a test imports.
fn layered(native: &Fixture) -> SandboxSpec {
    let third = {
        let mut tar = Builder::new(Vec::new());
        add(&mut tar, "t/third", 0, 0o644, "third");
        tar.into_inner().expect("a tar")
    };
    let (store, image) = import(native.state.path(), &[base(), upper(), third]);
    let paths = store.paths(&image).into();
    SandboxSpec { image: ImageRef::Layers { paths, digest: image.digest.into() }, ..spec() }
}

#[tokio::test]
async fn layers_are_one_image_that_nobody_writes() {
    let Some(native) = native() else { return };
    let spec = layered(&native);
    let script = "cd /t && for name in . kept opaque again; do echo $name: $(ls -A $name); done; \
                  cat changed third kept/stays; test ! -e removed && test ! -e opaque/old && echo gone";
    let run = native.run_in(spec.clone(), sh(script)).await;
    let expected = ".: again changed kept mine opaque runs third\nkept: stays\nopaque: new\n\
                    again: new\nnewthirdoldgone";
    assert_eq!(stdout(&run), expected, "{}", told(&run));

    // The work tree is writable as ever, the image is not, by whoever owns it.
    let layers = vec![files([("a/x", file("x"))])];
    let script = "echo y > a/x && rm a/x && echo z > /tmp/z || exit 1; \
                  for name in changed mine third new opaque/new; do (echo x > /t/$name) && exit 2; done; \
                  rm /t/third && exit 3; mkdir /t/d && exit 4; chmod 777 /t/mine && exit 5; echo fine";
    let run = native.run_in(SandboxSpec { layers, ..spec.clone() }, sh(script)).await;
    assert_eq!(stdout(&run), "fine", "{}", told(&run));

    let script = "cd /t; stat -c '%n %u:%g %a' third mine runs; cat mine; echo; ./runs; test -w mine || echo ro";
    let run = native.run_in(spec, sh(script)).await;
    // Without root, the store's files are all one user's, who is the sandbox's.
    let (third, runs) = if is_root() { ("0:0", "65534:65534") } else { ("1000:1000", "1000:1000") };
    let expected =
        format!("third {third} 644\nmine 1000:1000 644\nruns {runs} 755\nmine\n1000\nro");
    assert_eq!(stdout(&run), expected, "{}", told(&run));
}

#[tokio::test]
async fn warm_interpreters_come_of_layers_too() {
    let Some(native) = native() else { return };
    let spec = layered(&native);
    for _ in 0..2 {
        let code = "import json, os; print(json.dumps(sorted(os.listdir('/t/opaque'))))";
        let run = warm::run_in(&native, spec.clone(), code, &["json"]).await;
        assert_eq!((stdout(&run).as_str(), &run.isolation.start), (r#"["new"]"#, &Start::Warm));
    }
}

#[tokio::test]
async fn refuses_layers_that_are_none() {
    let Some(native) = native() else { return };
    let rootfs = rootfs().expect("a root filesystem");
    let image = |paths: Vec<std::path::PathBuf>| ImageRef::Layers {
        paths: paths.into(),
        digest: "sha256:test".to_owned(),
    };
    let none = native.create(SandboxSpec { image: image(Vec::new()), ..spec() }).await;
    assert!(matches!(none, Err(BackendError::Spec(_))));
    let gone = image(vec![rootfs.clone(), "/no/such/layer".into()]);
    let gone = native.create(SandboxSpec { image: gone, ..spec() }).await;
    assert!(matches!(gone, Err(BackendError::ImageNotFound(layer)) if layer == "/no/such/layer"));
    let many =
        native.create(SandboxSpec { image: image(vec![rootfs.clone(); 200]), ..spec() }).await;
    assert!(matches!(many, Err(BackendError::Spec(_))));

    // As many as an image may have.
    let empty = (1..80).map(|number| {
        let path = native.state.path().join(format!("layer-{number}"));
        fs::create_dir(&path).expect("a folder");
        path
    });
    let most: Vec<_> = std::iter::once(rootfs).chain(empty).collect();
    let layers = vec![Layer::Files(Arc::new(BTreeMap::new()))];
    let spec = SandboxSpec { image: image(most), layers, ..spec() };
    let run = native.run_in(spec, sh("true")).await;
    assert_eq!(run.termination, Termination::Exited(0), "{}", told(&run));
}

/// Whoever makes an image again at the same place gets the new one.
#[tokio::test]
async fn an_image_that_was_made_again_is_another() {
    let (Some(native), Some(from)) = (native_of_one_slot(), rootfs()) else { return };
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    for text in ["first", "second"] {
        let _ = std::fs::remove_dir_all(&tree);
        let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&tree).status();
        assert!(copied.unwrap().success());
        std::fs::write(tree.join("etc/which"), text).unwrap();
        let image = ImageRef::Rootfs { path: tree.clone(), digest: "sha256:same".to_owned() };
        for _ in 0..2 {
            let spec = SandboxSpec { image: image.clone(), ..spec() };
            let execution = native.run_in(spec, sh("cat /etc/which")).await;
            assert_eq!(stdout(&execution), text, "{}", told(&execution));
        }
    }
    assert_eq!(native.slots().misses, 1, "one slot made all of them");
}
