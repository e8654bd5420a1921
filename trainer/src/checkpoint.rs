//! Checkpoints: a folder that Hugging Face transformers loads, with what a run needs to go on.
//!
//! ```text
//! checkpoints/step-000033/
//!   config.json, tokenizer.json, ...    the model, for transformers and for `policy.path`
//!   model.safetensors                   the fp32 masters
//!   optimizer.safetensors               both moments of AdamW
//!   resume.json                         step, optimizer steps, seed, parameter names
//! ```
//!
//! A checkpoint is written beside its name and renamed, so that a folder with that name is whole.
//! Random draws are functions of seed and step (see [`crate::rng`]): no generator has a state to keep.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::gguf::LoadError;
use crate::model::{ModelConfig, NamedTensors};
use crate::optim::AdamW;
use crate::tokenizer::Tokenizer;
use crate::weights;

/// Names the folder of a step.
const PREFIX: &str = "step-";

/// What `resume.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Steps of the loop that are done.
    pub step: u64,
    /// Optimizer steps behind the weights.
    pub updates: u64,
    /// The run's seed.
    pub seed: u64,
    /// `policy.path` of the run: what the KL's reference is loaded from.
    pub policy: String,
}

/// Why a checkpoint can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that can't be read or written.
    #[error("checkpoint file {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model's part.
    #[error("checkpoint model")]
    Model(#[from] LoadError),
    /// A file that is there and says something else than it should.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io { path: path.to_owned(), source }
}

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those of the run that writes to `out`; at most `keep` stay (0: all).
    pub fn of(out: &Path, keep: usize) -> Self {
        Self { folder: out.join("checkpoints"), keep }
    }

    /// Writes the checkpoint of `resume.step` and deletes the oldest ones. Returns its folder.
    pub fn save(
        &self,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
        adam: &AdamW,
        resume: &Resume,
    ) -> Result<PathBuf, CheckpointError> {
        let folder = self.folder.join(format!("{PREFIX}{:06}", resume.step));
        let partial = self.folder.join(format!(".{PREFIX}{:06}.partial", resume.step));
        remove(&partial)?;
        std::fs::create_dir_all(&partial).map_err(io(&partial))?;
        let masters: NamedTensors = names(adam).zip(adam.master_views()).collect();
        weights::save_hf(&partial, config, &masters, Some(tokenizer))?;
        let path = partial.join("optimizer.safetensors");
        let moments = [("first", &adam.first), ("second", &adam.second)];
        let moments = moments.map(|(name, moment)| (name, moment.to_device(tch::Device::Cpu)));
        Tensor::write_safetensors(&moments, &path)
            .map_err(|error| io(&path)(std::io::Error::other(error)))?;
        let path = partial.join("resume.json");
        let text = serde_json::to_string_pretty(resume).expect("numbers and strings are JSON");
        std::fs::write(&path, text).map_err(io(&path))?;
        sync(&partial)?;
        // The same step written again, after a resume: the older one makes room.
        remove(&folder)?;
        std::fs::rename(&partial, &folder).map_err(io(&folder))?;
        self.prune()?;
        Ok(folder)
    }

    /// Folder and contents of `resume.json` of the latest checkpoint, where there is one.
    pub fn latest(&self) -> Result<Option<(PathBuf, Resume)>, CheckpointError> {
        let Some(folder) = self.all()?.pop() else { return Ok(None) };
        let path = folder.join("resume.json");
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        let resume = serde_json::from_str(&text)
            .map_err(|error| CheckpointError::Malformed { path, detail: error.to_string() })?;
        Ok(Some((folder, resume)))
    }

    /// Whole checkpoints, oldest first.
    fn all(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(&self.folder)(error)),
        };
        let mut found: Vec<(u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    fn prune(&self) -> Result<(), CheckpointError> {
        let all = self.all()?;
        let surplus = if self.keep == 0 { 0 } else { all.len().saturating_sub(self.keep) };
        all[..surplus].iter().try_for_each(|folder| remove(folder))
    }
}

/// Puts the moments of the checkpoint in `folder` into `adam`, whose masters were loaded from it.
pub fn restore(folder: &Path, resume: &Resume, adam: &mut AdamW) -> Result<(), CheckpointError> {
    let path = folder.join("optimizer.safetensors");
    let malformed = |detail: String| CheckpointError::Malformed { path: path.clone(), detail };
    let tensors = Tensor::read_safetensors(&path).map_err(|error| malformed(error.to_string()))?;
    for name in ["first", "second"] {
        if tensors.iter().all(|(found, _)| found != name) {
            return Err(malformed(format!("expected tensor `{name}`")));
        }
    }
    for (name, tensor) in tensors {
        let target = match name.as_str() {
            "first" => &mut adam.first,
            "second" => &mut adam.second,
            _ => return Err(malformed(format!("unexpected tensor `{name}`"))),
        };
        if tensor.size() != target.size() {
            let (found, expected) = (tensor.numel(), target.numel());
            return Err(malformed(format!("`{name}` has {found} elements, the model {expected}")));
        }
        tch::no_grad(|| target.copy_(&tensor));
    }
    adam.steps = resume.updates;
    Ok(())
}

fn names(adam: &AdamW) -> impl Iterator<Item = String> + '_ {
    adam.slots.iter().map(|slot| slot.name.clone())
}

/// The masters of a model's tensors, in the order of its parameters.
pub fn ordered(tensors: &NamedTensors, parameters: &[(String, Tensor)]) -> Vec<Tensor> {
    let by_name: std::collections::HashMap<&str, &Tensor> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    parameters.iter().map(|(name, _)| by_name[name.as_str()].shallow_clone()).collect()
}

fn remove(folder: &Path) -> Result<(), CheckpointError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(folder)(error)),
        _ => Ok(()),
    }
}

/// What is renamed must be on the disk first, or a power cut leaves a whole name on half a file.
fn sync(folder: &Path) -> Result<(), CheckpointError> {
    for entry in std::fs::read_dir(folder).map_err(io(folder))?.flatten() {
        let path = entry.path();
        std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io(&path))?;
    }
    std::fs::File::open(folder).and_then(|file| file.sync_all()).map_err(io(folder))
}
