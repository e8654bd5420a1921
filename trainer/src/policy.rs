//! The weights that a run starts from, and where and in which kind they are computed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tch::{Cuda, Device, Kind, Tensor};

use crate::config::{DeviceChoice, Dtype, PolicyConfig};
use crate::gguf::LoadError;
use crate::model::{Arch, Model, ModelConfig, ModelError, NamedTensors};
use crate::tokenizer::Tokenizer;
use crate::weights::{self, Loaded};

/// `policy.path` of the model that starts from random weights.
pub const TINY: &str = "tiny";
/// bf16 is taken where it multiplies this much faster than fp32.
const WORTHWHILE: f64 = 1.3;

/// A policy, ready to sample and to learn.
pub struct Policy {
    /// Compute weights.
    pub model: Model,
    /// fp32, one per parameter of `model`, in order.
    pub masters: Vec<Tensor>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The files.
    #[error("cannot load the policy")]
    Load(#[from] LoadError),
    /// What is in them.
    #[error("cannot build the policy")]
    Model(#[from] ModelError),
    /// No GPU where one is asked for.
    #[error(
        "policy.device is \"cuda\", but libtorch finds no GPU (built without CUDA, or no driver)"
    )]
    NoCuda,
}

/// Loads `config.path`, or `checkpoint` in its stead.
pub fn load(
    config: &PolicyConfig,
    seed: u64,
    checkpoint: Option<&Path>,
) -> Result<Policy, PolicyError> {
    let device = device(config.device)?;
    let loaded = match checkpoint {
        Some(folder) => weights::load(folder)?,
        None if config.path == TINY => tiny(seed),
        None => weights::load(&resolve(&config.path))?,
    };
    let Loaded { config: shape, tensors, tokenizer } = loaded;
    let kind = kind(config.dtype, device, &shape);
    let model = Model::from_tensors(shape, &tensors, kind, device)?;
    let masters = ordered(tensors, &model);
    Ok(Policy { model, masters, tokenizer })
}

/// `cache:x` lies below the folder that the project's scripts fetch things into.
fn resolve(path: &str) -> PathBuf {
    let Some(rest) = path.strip_prefix("cache:") else { return path.into() };
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("ASSAY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("assay")))
        .unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache/assay"));
    cache.join(rest)
}

fn ordered(tensors: NamedTensors, model: &Model) -> Vec<Tensor> {
    let mut by_name: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    let mut take = |name: &String| by_name.remove(name).expect("the model was built of these");
    model.parameters().iter().map(|(name, _)| take(name)).collect()
}

/// Where `choice` puts tensors on this machine.
pub fn device(choice: DeviceChoice) -> Result<Device, PolicyError> {
    match (choice, Cuda::is_available()) {
        (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, false) => Ok(Device::Cpu),
        (_, true) => Ok(Device::Cuda(0)),
        (DeviceChoice::Cuda, false) => Err(PolicyError::NoCuda),
    }
}

/// The kind that `choice` computes in on `device`.
pub fn kind(choice: Dtype, device: Device, shape: &ModelConfig) -> Kind {
    let bf16 = match choice {
        Dtype::Fp32 => false,
        Dtype::Bf16 => true,
        // Every GPU that libtorch 2.11 supports computes in bf16 or emulates it well.
        Dtype::Auto if device.is_cuda() => true,
        // A model this small is all overhead: rounding buys nothing.
        Dtype::Auto if shape.hidden < 256 => false,
        Dtype::Auto => has_bf16() && bf16_speedup(shape) > WORTHWHILE,
    };
    if bf16 { Kind::BFloat16 } else { Kind::Float }
}

/// Whether the CPU multiplies bf16 by itself.
fn has_bf16() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "amx_bf16" || flag == "avx512_bf16")
}

/// How many times as fast a typical product of this model is in bf16: a flag alone says little of
/// the kernels behind it. The two take turns and the best of each counts, so that other work on the
/// machine does not decide.
fn bf16_speedup(shape: &ModelConfig) -> f64 {
    let _guard = tch::no_grad_guard();
    let rows = Tensor::randn([512, shape.hidden], (Kind::Float, Device::Cpu));
    let matrix = Tensor::randn([shape.hidden, shape.intermediate], (Kind::Float, Device::Cpu));
    let mut best = [f64::INFINITY; 2];
    let operands =
        [Kind::Float, Kind::BFloat16].map(|kind| (rows.to_kind(kind), matrix.to_kind(kind)));
    for _ in 0..16 {
        for (best, (rows, matrix)) in best.iter_mut().zip(&operands) {
            let started = Instant::now();
            let _ = rows.matmul(matrix);
            *best = best.min(started.elapsed().as_secs_f64());
        }
    }
    best[0] / best[1]
}

/// A Llama of some 200,000 parameters over bytes, from random weights.
fn tiny(seed: u64) -> Loaded {
    let tokenizer = Tokenizer::bytes();
    let config = ModelConfig {
        arch: Arch::Llama,
        vocab: tokenizer.size(),
        hidden: 96,
        intermediate: 192,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        head_dim: 24,
        rope_theta: 10_000.0,
        rms_eps: 1e-5,
        tied: false,
        qkv_bias: false,
        qk_norm: false,
        max_positions: 64,
        bos: None,
        eos: tokenizer.eos().to_vec(),
    };
    let model = Model::random(config.clone(), seed, Kind::Float, Device::Cpu);
    // Layers this narrow need larger weights than 0.02 to tell positions apart from the start; the
    // head stays as it is, so that the first answers are drawn from nearly all bytes alike.
    let larger = |(name, tensor): &(String, Tensor)| {
        let keep = name.contains("norm") || name.contains("lm_head");
        (name.clone(), if keep { tensor.copy() } else { tensor * 3.0 })
    };
    let tensors = model.parameters().iter().map(larger).collect();
    Loaded { config, tensors, tokenizer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_is_tiny_and_speaks_bytes() {
        let config = PolicyConfig { path: TINY.into(), ..PolicyConfig::default() };
        let policy = load(&config, 1, None).unwrap();
        assert!(policy.model.config().parameter_count() < 2_000_000);
        assert_eq!(policy.model.kind(), Kind::Float);
        let text = "abc> é\0\n";
        let tokens = policy.tokenizer.encode(text).unwrap();
        assert_eq!(tokens.len(), text.len());
        assert_eq!(policy.tokenizer.decode(&tokens), text);
        assert_eq!(policy.tokenizer.render_chat(&[("user", "ab>")]).unwrap(), "ab>");
        assert_eq!(policy.tokenizer.eos(), [256]);
    }
}
