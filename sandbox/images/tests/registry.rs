//! Images from a registry: Debian's `docker-registry`, filled by `docker push`.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use assay_images::{Digest, ImageError};
use common::Place;

/// The image that is pushed, which `make docker` makes.
const IMAGE: &str = "assay-python:1";

/// A registry of its own on this machine; ends when dropped.
struct Registry {
    child: Child,
    host: String,
    storage: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let tag = format!("{}/{IMAGE}", self.host);
        docker(&["image", "rm", "--no-prune", &tag]);
    }
}

impl Registry {
    /// Starts one with [`IMAGE`] in it, or says why not.
    async fn start(storage: &Path) -> Result<Self, &'static str> {
        if !docker(&["image", "inspect", IMAGE]) {
            return Err("no Docker engine with `assay-python:1`; `make docker`");
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let host = free.expect("a port").to_string();
        let config = storage.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n",
            storage.display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|_| "no `docker-registry`; apt-get install it")?;
        let registry = Self { child, host, storage: storage.to_owned() };
        for _ in 0..600 {
            if std::net::TcpStream::connect(&registry.host).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let tag = format!("{}/{IMAGE}", registry.host);
        assert!(docker(&["tag", IMAGE, &tag]) && docker(&["push", "-q", &tag]), "docker push");
        Ok(registry)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.storage.join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

fn docker(arguments: &[&str]) -> bool {
    let mut docker = Command::new("docker");
    docker.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    docker.status().is_ok_and(|status| status.success())
}

/// A registry may send any manifest, also one without an end.
#[tokio::test]
async fn a_manifest_without_an_end_is_refused() {
    const FAR_TOO_MUCH: usize = 256 << 20;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = socket.local_addr().unwrap().to_string();
    let serve = move || {
        let mut sent = 0;
        for stream in socket.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let is_manifest = line.contains("/manifests/");
            let length = if is_manifest { FAR_TOO_MUCH } else { 0 };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            while sent < length && stream.write_all(&[b' '; 1 << 16]).is_ok() {
                sent += 1 << 16;
            }
            if is_manifest {
                break;
            }
        }
        sent
    };
    let registry = tokio::task::spawn_blocking(serve);
    let place = Place::new();
    let refused = place.store.pull(&format!("{host}/app:1"), None).await.unwrap_err();
    assert!(refused.to_string().contains("a manifest of more than 4 MiB"), "{refused}");
    assert!(registry.await.unwrap() < FAR_TOO_MUCH);
    assert!(place.holdings().is_empty(), "{:?}", place.holdings());
}

#[tokio::test]
async fn pulls_what_docker_pushed() {
    let place = Place::new();
    let storage = place.path("registry");
    fs::create_dir(&storage).unwrap();
    let registry = match Registry::start(&storage).await {
        Ok(registry) => registry,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let tag = format!("{}/{IMAGE}", registry.host);
    let pulled = place.store.pull(&tag, None).await.unwrap();
    assert_eq!(pulled.name.as_str(), tag);
    let saved = place.path("saved.tar");
    assert!(docker(&["save", IMAGE, "-o", saved.to_str().unwrap()]));
    let saved = place.store.import(&saved, None).unwrap();
    assert_eq!((&pulled.digest, &pulled.layers), (&saved.digest, &saved.layers));

    // By digest: the manifest's own bytes are what was asked for.
    let links =
        storage.join("docker/registry/v2/repositories/assay-python/_manifests/tags/1/current/link");
    let manifest = fs::read_to_string(links).unwrap();
    let by_digest = format!("{}/assay-python@{manifest}", registry.host);
    let again = place.store.pull(&by_digest, Some("again".parse().unwrap())).await.unwrap();
    assert_eq!(again.digest, pulled.digest);

    let missing = place.store.pull(&format!("{}/no-such:1", registry.host), None).await;
    assert!(matches!(missing, Err(ImageError::Registry { .. })), "{missing:?}");

    // A registry that gives something else is found out, and nothing of it stays.
    let text = fs::read(registry.blob(&manifest)).unwrap();
    assert_eq!(Digest::of(&text).as_str(), manifest);
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let layer = registry.blob(document["layers"][0]["digest"].as_str().unwrap());
    let content = fs::read(&layer).unwrap();
    let mut changed = content.clone();
    changed[content.len() / 2] ^= 1;
    let longer = [&content[..], b"x"].concat();
    let hostile = Place::new();
    for (case, content) in
        [("changed", &changed[..]), ("longer", &longer), ("cut off", &content[..99])]
    {
        fs::File::create(&layer).unwrap().write_all(content).unwrap();
        let refused = hostile.store.pull(&tag, None).await;
        assert!(
            matches!(refused, Err(ImageError::Refused(_) | ImageError::Registry { .. })),
            "{case}: {refused:?}"
        );
        assert!(hostile.holdings().is_empty(), "{case}: {:?}", hostile.holdings());
    }

    for (reference, why) in
        [("a@sha256:0", "no image reference"), ("a b", "can't be an image's name")]
    {
        let refused = hostile.store.pull(reference, None).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
}
