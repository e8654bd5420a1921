//! Images from a registry, which are staged as a layout and then imported like any other.

use std::{
    fs,
    path::PathBuf,
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
    time::Duration,
};

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use tokio::{
    fs::File,
    io::{self, AsyncWrite},
};
use tracing::info;

use crate::{
    Digest, Image, ImageError, ImageName, ImageResult, Store,
    error::refuse,
    layout::{self, DOCUMENT_BYTES, Descriptor, Layout, Manifest},
};

/// How long a registry may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// What we ask for: what the specification and Docker call a manifest and an index.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

impl Store {
    /// Pulls an image from the registry that `reference` names (Docker Hub where it names none),
    /// without credentials. A registry on this machine is spoken to in plain HTTP. Layers that are
    /// there already are not fetched. Without `name` it is called as it was asked for.
    ///
    /// # Errors
    ///
    /// [`ImageError::Registry`] when the registry fails; otherwise as [`Store::import`].
    pub async fn pull(&self, reference: &str, name: Option<ImageName>) -> ImageResult<Image> {
        let name = match name {
            Some(name) => name,
            None => reference.parse().or_else(|e| refuse(format!("{e}; name it with --name")))?,
        };
        let parsed: Reference = reference
            .parse()
            .or_else(|e| refuse(format!("`{reference}` is no image reference: {e}")))?;
        let _lock = self.lock()?;
        let staged = self.staged()?;
        let pull = Pull {
            client: client(&parsed)?,
            http: http(&parsed)?,
            reference: parsed,
            staged: staged.path().to_owned(),
        };
        let manifest = pull.stage(self).await.map_err(|e| e.of(reference))?;
        let (store, source) = (self.clone(), reference.to_owned());
        let import = move || {
            let layout = Layout::open(staged.path())?;
            let found = layout.of_manifest(&manifest, None)?;
            store.add(&layout, found, name, &source)
        };
        let imported = tokio::task::spawn_blocking(import).await;
        imported
            .unwrap_or_else(|panic| refuse(format!("the import ended: {panic}")))
            .map_err(|e| e.of(reference))
    }
}

/// One pull.
struct Pull {
    client: Client,
    /// For manifests, which `client` reads whole, however long.
    http: reqwest::Client,
    reference: Reference,
    staged: PathBuf,
}

impl Pull {
    /// Fetches manifest, configuration and the layers that the store lacks. Returns the manifest.
    async fn stage(&self, store: &Store) -> ImageResult<Vec<u8>> {
        let blobs = self.staged.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(ImageError::io("make", blobs))?;
        let manifest = self.manifest().await?;
        let parsed: Manifest = layout::parse(&manifest).map_err(|e| e.of("manifest"))?;
        if parsed.config.size > DOCUMENT_BYTES {
            return refuse(format!("a configuration of {} bytes", parsed.config.size));
        }
        let config = self.blob(&parsed.config).await?;
        let config = fs::read(&config).map_err(ImageError::io("read", config))?;
        let diff_ids = layout::diff_ids(&config)?;
        let total = parsed.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        if total > store.limits.bytes {
            return refuse(format!("{total} bytes are more than an image may have"));
        }
        for (layer, diff_id) in parsed.layers.iter().zip(diff_ids) {
            if store.facts(&diff_id).is_none() {
                info!(digest = %layer.digest, bytes = layer.size, "fetching a layer");
                self.blob(layer).await?;
            }
        }
        Ok(manifest)
    }

    /// Fetches the manifest for this machine.
    async fn manifest(&self) -> ImageResult<Vec<u8>> {
        let mut reference = self.reference.clone();
        for _ in 0..2 {
            let bytes = self.document(&reference).await?;
            // By tag there is nothing to compare with.
            if let Some(digest) = reference.digest() {
                let digest = digest.parse().or_else(|e| refuse(format!("{digest}: {e}")))?;
                layout::check_digest(&digest, &Digest::of(&bytes))?;
            }
            match layout::fitting_manifest(&bytes)? {
                Some(digest) => reference = reference.clone_with_digest(digest.to_string()),
                None => return Ok(bytes),
            }
        }
        refuse("an index in an index")
    }

    /// Fetches a manifest or an index.
    async fn document(&self, reference: &Reference) -> ImageResult<Vec<u8>> {
        let failed = |e| self.failed("the manifest", e);
        let (auth, operation) = (&RegistryAuth::Anonymous, RegistryOperation::Pull);
        let token = self.client.auth(reference, auth, operation).await.map_err(failed)?;
        let registry = reference.resolve_registry();
        let url = format!(
            "{}://{registry}/v2/{}/manifests/{}",
            if is_local(registry) { "http" } else { "https" },
            reference.repository(),
            reference.digest().or(reference.tag()).unwrap_or("latest"),
        );
        let mut request = self.http.get(&url).header("accept", ACCEPTED.join(", "));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let mut answer = request.send().await.map_err(|e| failed(e.into()))?;
        let status = answer.status();
        if status != reqwest::StatusCode::OK {
            let message = status.canonical_reason().unwrap_or_default().to_owned();
            let code = status.as_u16();
            return Err(failed(OciDistributionError::ServerError { code, url, message }));
        }
        let mut bytes = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(|e| failed(e.into()))? {
            if (bytes.len() + more.len()) as u64 > DOCUMENT_BYTES {
                return refuse(format!("a manifest of more than {} MiB", DOCUMENT_BYTES >> 20));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    }

    /// Fetches a blob, unless it is there. The client compares the digest.
    async fn blob(&self, descriptor: &Descriptor) -> ImageResult<PathBuf> {
        let path = self.staged.join(layout::place(&descriptor.digest));
        if path.exists() {
            return Ok(path);
        }
        let what = OciDescriptor {
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let file = File::create(&path).await.map_err(ImageError::io("make", &path))?;
        let file = Bounded { file, left: descriptor.size };
        let pulled = self.client.pull_blob(&self.reference, &what, file).await;
        match pulled {
            Ok(()) => Ok(path),
            Err(OciDistributionError::IoError(e)) if e.kind() == io::ErrorKind::FileTooLarge => {
                refuse(format!("{} is longer than its manifest says", descriptor.digest))
            }
            Err(OciDistributionError::IoError(e)) => Err(ImageError::io("write", path)(e)),
            Err(OciDistributionError::DigestError(e)) => {
                refuse(format!("{}: {e}", descriptor.digest))
            }
            Err(e) => Err(self.failed(&descriptor.digest.to_string(), e)),
        }
    }

    fn failed(&self, what: &str, source: OciDistributionError) -> ImageError {
        let reference = self.reference.to_string();
        ImageError::Registry { what: what.to_owned(), reference, source: Box::new(source) }
    }
}

/// Several libraries of cryptography may be linked in; this one is ours.
fn choose_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn http(reference: &Reference) -> ImageResult<reqwest::Client> {
    choose_provider();
    let client = reqwest::Client::builder().connect_timeout(SILENCE).read_timeout(SILENCE).build();
    client.or_else(|e| refuse(format!("no client for {}: {e}", reference.resolve_registry())))
}

fn client(reference: &Reference) -> ImageResult<Client> {
    choose_provider();
    let registry = reference.resolve_registry();
    let protocol = if is_local(registry) {
        ClientProtocol::HttpsExcept(vec![registry.to_owned()])
    } else {
        ClientProtocol::Https
    };
    let config = ClientConfig {
        protocol,
        connect_timeout: Some(SILENCE),
        read_timeout: Some(SILENCE),
        ..ClientConfig::default()
    };
    Client::try_from(config).or_else(|e| refuse(format!("no client for {registry}: {e}")))
}

/// Whether a registry is on this machine, where Docker speaks plain HTTP, too.
fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost"
        || host == "[::1]"
        || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}

/// A file that takes so many bytes and no more.
struct Bounded {
    file: File,
    left: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let written = Pin::new(&mut self.file).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.left -= written as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}
