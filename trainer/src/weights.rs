//! Models in files: GGUF and Hugging Face folders in, Hugging Face folders out.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::gguf::{Gguf, LoadError, TensorInfo};
use crate::model::{Arch, ModelConfig, NamedTensors};
use crate::tokenizer::{Tokenizer, read, write};

/// A model as its files describe it.
#[derive(Debug)]
pub struct Loaded {
    /// Its shape.
    pub config: ModelConfig,
    /// Every parameter, fp32, in the model's order.
    pub tensors: NamedTensors,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Loads a `.gguf` file or a Hugging Face folder.
///
/// # Errors
/// When files are missing, damaged, contradict each other, or hold another kind of model.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let loaded = if path.is_dir() { load_hf(path)? } else { load_gguf(path)? };
    let (size, vocab) = (loaded.tokenizer.size(), loaded.config.vocab);
    // Embeddings are often padded to a round number, so fewer tokens than rows are sound.
    if size > vocab {
        return Err(LoadError::malformed(
            path,
            format!("the tokenizer has {size} tokens, but the embedding {vocab} rows"),
        ));
    }
    loaded.config.check().map_err(|error| LoadError::malformed(path, error.to_string()))?;
    Ok(loaded)
}

fn load_gguf(path: &Path) -> Result<Loaded, LoadError> {
    let gguf = Gguf::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let config = gguf_config(&gguf, &tokenizer)?;
    let shapes = checked_shapes(path, &config)?;
    let mut tensors = NamedTensors::with_capacity(shapes.len());
    for (name, shape) in shapes {
        let info = gguf_name(&name).and_then(|name| gguf.tensors().get(&name));
        let info =
            info.ok_or_else(|| LoadError::malformed(path, format!("expected tensor `{name}`")))?;
        if info.shape != shape {
            let detail =
                format!("tensor `{}`: expected shape {shape:?}, found {:?}", info.name, info.shape);
            return Err(LoadError::malformed(path, detail));
        }
        let tensor = Tensor::from_slice(&gguf.dequantize(info)).reshape(&shape);
        tensors.push((name.clone(), unpermuted(&config, &name, tensor)));
    }
    Ok(Loaded { config, tensors, tokenizer })
}

/// Names and shapes, once the configuration is sound enough to ask for them.
fn checked_shapes(path: &Path, config: &ModelConfig) -> Result<Vec<(String, Vec<i64>)>, LoadError> {
    config.check().map_err(|error| LoadError::malformed(path, error.to_string()))?;
    if config.layers > 1000 {
        return Err(LoadError::malformed(path, format!("{} layers", config.layers)));
    }
    Ok(config.parameter_shapes())
}

fn gguf_config(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<ModelConfig, LoadError> {
    let path = gguf.path();
    let name = gguf.string("general.architecture")?.unwrap_or_default();
    let arch = match name {
        "llama" => Arch::Llama,
        "qwen2" => Arch::Qwen2,
        "qwen3" => Arch::Qwen3,
        other => {
            return Err(LoadError::unsupported(path, format!("architecture `{other}`")));
        }
    };
    let missing = |key: &str| LoadError::malformed(path, format!("expected `{name}.{key}`"));
    let optional = |key: &str| -> Result<Option<i64>, LoadError> {
        let value = gguf.unsigned(&format!("{name}.{key}"))?;
        Ok(value.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
    };
    let integer = |key: &str| optional(key)?.ok_or_else(|| missing(key));
    let float = |key: &str| gguf.float(&format!("{name}.{key}"));

    for unknown in ["rope_freqs.weight", "blk.0.ffn_gate_inp.weight"] {
        if gguf.tensors().contains_key(unknown) {
            return Err(LoadError::unsupported(path, format!("tensor `{unknown}`")));
        }
    }
    if let Some(scaling) = gguf.string(&format!("{name}.rope.scaling.type"))?
        && scaling != "none"
    {
        return Err(LoadError::unsupported(path, format!("rope scaling `{scaling}`")));
    }
    let embedding: Option<&TensorInfo> = gguf.tensors().get("token_embd.weight");
    let vocab = embedding
        .and_then(|info| info.shape.first().copied())
        .ok_or_else(|| LoadError::malformed(path, "expected tensor `token_embd.weight`"))?;
    let (hidden, heads) = (integer("embedding_length")?, integer("attention.head_count")?);
    let head_dim = match optional("attention.key_length")? {
        Some(width) => width,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let bias = gguf.tensors().contains_key("blk.0.attn_q.bias");
    Ok(ModelConfig {
        arch,
        vocab,
        hidden,
        intermediate: integer("feed_forward_length")?,
        layers: integer("block_count")?,
        heads,
        kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        rope_theta: float("rope.freq_base")?.unwrap_or(10_000.0),
        // Written as f32: 1e-5 comes back as 9.9999997e-6.
        rms_eps: float("attention.layer_norm_rms_epsilon")?
            .map(|eps| (eps as f32).to_string().parse().unwrap_or(eps))
            .ok_or_else(|| missing("attention.layer_norm_rms_epsilon"))?,
        tied: !gguf.tensors().contains_key("output.weight"),
        qkv_bias: bias,
        qk_norm: arch == Arch::Qwen3,
        max_positions: integer("context_length")?,
        bos: tokenizer.bos(),
        eos: tokenizer.eos().to_vec(),
    })
}

/// The GGUF name of a Hugging Face one.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{suffix}"))
}

/// GGUF files of the llama architecture interleave the rows of q and k within each head, for
/// rotary embeddings of neighbouring pairs; ours turns element i with element i + d / 2.
fn unpermuted(config: &ModelConfig, name: &str, tensor: Tensor) -> Tensor {
    let heads = if name.contains(".self_attn.q_proj.") {
        config.heads
    } else if name.contains(".self_attn.k_proj.") {
        config.kv_heads
    } else {
        return tensor;
    };
    if config.arch != Arch::Llama {
        return tensor;
    }
    let shape = tensor.size();
    tensor.view([heads, config.head_dim / 2, 2, -1]).transpose(1, 2).reshape(&shape)
}

fn load_hf(folder: &Path) -> Result<Loaded, LoadError> {
    let path = folder.join("config.json");
    let config = read_config(&path)?;
    let shapes = checked_shapes(&path, &config)?;
    let files = shards(folder)?;
    let mut found: HashMap<String, Tensor> = HashMap::new();
    let wanted: HashMap<&str, &Vec<i64>> =
        shapes.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
    for path in files {
        read_safetensors(&path, &wanted, &mut found)?;
    }
    let mut tensors = NamedTensors::with_capacity(shapes.len());
    for (name, _) in &shapes {
        let tensor = found
            .remove(name)
            .ok_or_else(|| LoadError::malformed(folder, format!("expected tensor `{name}`")))?;
        tensors.push((name.clone(), tensor));
    }
    let tokenizer = Tokenizer::from_hf(folder, config.bos, config.eos.clone())?;
    Ok(Loaded { config, tensors, tokenizer })
}

/// `model.safetensors`, or the files that its index lists.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![folder.join("model.safetensors")]);
    }
    let map = read_json(&index)?;
    let map = map.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| LoadError::malformed(&index, "expected an object `weight_map`"))?;
    let mut files = Vec::new();
    for file in map.values() {
        // A plain file name: an index must not lead out of its folder.
        let name = file.as_str().filter(|name| {
            Path::new(name).file_name().is_some_and(|plain| plain.to_str() == Some(name))
        });
        let Some(name) = name else {
            return Err(LoadError::malformed(
                &index,
                format!("expected a file name, found {file}"),
            ));
        };
        let path = folder.join(name);
        if !files.contains(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_safetensors(
    path: &Path,
    wanted: &HashMap<&str, &Vec<i64>>,
    found: &mut HashMap<String, Tensor>,
) -> Result<(), LoadError> {
    let error = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    // JUSTIFICATION: a copy would double the memory that loading needs.
    // SAFETY: the mapping is private and read-only. A program that truncates the file meanwhile
    // could still end this one with SIGBUS, as for every mapped model.
    #[expect(unsafe_code, reason = "there is no safe way to map a file")]
    let map = unsafe { Mmap::map(&file) }.map_err(error)?;
    let file = SafeTensors::deserialize(&map)
        .map_err(|error| LoadError::malformed(path, format!("not sound safetensors: {error}")))?;
    for (name, view) in file.iter() {
        let Some(expected) = wanted.get(name) else { continue };
        let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
        if shape != **expected {
            let detail = format!("tensor `{name}`: expected shape {expected:?}, found {shape:?}");
            return Err(LoadError::malformed(path, detail));
        }
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let detail = format!("type {other:?} of tensor `{name}`");
                return Err(LoadError::unsupported(path, detail));
            }
        };
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
            .map_err(|error| LoadError::malformed(path, format!("tensor `{name}`: {error}")))?;
        found.insert(name.to_owned(), tensor.to_kind(Kind::Float));
    }
    Ok(())
}

/// Reads a Hugging Face `config.json`.
///
/// # Errors
/// When the file is missing, damaged or describes another kind of model.
pub fn read_config(path: &Path) -> Result<ModelConfig, LoadError> {
    let json = read_json(path)?;
    let arch = match json.get("model_type").and_then(Value::as_str) {
        Some("llama") => Arch::Llama,
        Some("qwen2") => Arch::Qwen2,
        Some("qwen3") => Arch::Qwen3,
        other => {
            let detail = format!("model_type {}", other.unwrap_or("(absent)"));
            return Err(LoadError::unsupported(path, detail));
        }
    };
    let optional = |key: &str| json.get(key).filter(|value| !value.is_null());
    let integer = |key: &str| {
        let value = optional(key).and_then(Value::as_i64);
        value.ok_or_else(|| LoadError::malformed(path, format!("expected an integer `{key}`")))
    };
    // Since transformers 5 the rotary settings stand together.
    let rope = optional("rope_parameters").or(optional("rope_scaling"));
    let rope_type = rope.and_then(|rope| rope.get("rope_type").or(rope.get("type")));
    if let Some(kind) = rope_type.and_then(Value::as_str)
        && kind != "default"
    {
        return Err(LoadError::unsupported(path, format!("rope type `{kind}`")));
    }
    let theta = optional("rope_theta").or(rope.and_then(|rope| rope.get("rope_theta")));
    for (key, sound) in [
        ("mlp_bias", json!(false)),
        ("attention_bias", json!(false)),
        ("use_sliding_window", json!(false)),
        ("hidden_act", json!("silu")),
        ("rope_interleaved", json!(false)),
    ] {
        if let Some(value) = optional(key).filter(|value| **value != sound) {
            return Err(LoadError::unsupported(path, format!("`{key}` = {value}")));
        }
    }
    let ids = |key: &str| -> Vec<i64> {
        match optional(key) {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_i64).collect(),
            Some(id) => id.as_i64().into_iter().collect(),
            None => Vec::new(),
        }
    };
    let (hidden, heads) = (integer("hidden_size")?, integer("num_attention_heads")?);
    let or = |key: &str, other: i64| optional(key).and_then(Value::as_i64).unwrap_or(other);
    Ok(ModelConfig {
        arch,
        vocab: integer("vocab_size")?,
        hidden,
        intermediate: integer("intermediate_size")?,
        layers: integer("num_hidden_layers")?,
        heads,
        kv_heads: or("num_key_value_heads", heads),
        head_dim: or("head_dim", hidden.checked_div(heads).unwrap_or(0)),
        rope_theta: theta.and_then(Value::as_f64).unwrap_or(10_000.0),
        rms_eps: optional("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
        tied: optional("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
        qkv_bias: arch == Arch::Qwen2,
        qk_norm: arch == Arch::Qwen3,
        max_positions: integer("max_position_embeddings")?,
        bos: ids("bos_token_id").first().copied(),
        eos: ids("eos_token_id"),
    })
}

/// Writes `config.json`, `model.safetensors` and the tokenizer's files into `folder`, as
/// transformers loads them. Tensors keep their kind.
///
/// # Errors
/// When a file can't be written.
pub fn save_hf(
    folder: &Path,
    config: &ModelConfig,
    tensors: &NamedTensors,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), LoadError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| LoadError::Write { path: folder.to_owned(), source })?;
    let kind = tensors.first().map_or(Kind::Float, |(_, tensor)| tensor.kind());
    let text = serde_json::to_string_pretty(&hf_json(config, kind)).expect("plain values");
    write(&folder.join("config.json"), text.as_bytes())?;

    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, size) = match tensor.kind() {
            Kind::BFloat16 => (Dtype::BF16, 2),
            Kind::Half => (Dtype::F16, 2),
            _ => (Dtype::F32, 4),
        };
        let tensor = tensor.detach().to_device(Device::Cpu);
        let tensor = if size == 4 { tensor.to_kind(Kind::Float) } else { tensor }.contiguous();
        let mut bytes = vec![0; tensor.numel() * size];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        let shape = tensor.size().iter().map(|d| *d as usize).collect::<Vec<_>>();
        data.push((name.as_str(), dtype, shape, bytes));
    }
    let path = folder.join("model.safetensors");
    let views = data.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as shape");
        (*name, view)
    });
    // transformers asks which framework wrote a file.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &path).map_err(|error| {
        LoadError::Write { path: path.clone(), source: std::io::Error::other(error.to_string()) }
    })?;
    tokenizer.map_or(Ok(()), |tokenizer| tokenizer.save(folder))
}

fn hf_json(config: &ModelConfig, kind: Kind) -> Value {
    let c = config;
    let (model_type, class) = match c.arch {
        Arch::Llama => ("llama", "LlamaForCausalLM"),
        Arch::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Arch::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
    };
    let dtype = match kind {
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    };
    let eos = match c.eos[..] {
        [] => Value::Null,
        [id] => json!(id),
        _ => json!(c.eos),
    };
    json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.intermediate,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.rms_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
        "bos_token_id": c.bos,
        "eos_token_id": eos,
        "torch_dtype": dtype,
        "use_cache": true,
    })
}

fn read_json(path: &Path) -> Result<Value, LoadError> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| LoadError::malformed(path, format!("not JSON: {error}")))
}
