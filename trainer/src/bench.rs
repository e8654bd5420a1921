//! How long a training step and a round of sampling take, on a workload that another program can
//! run too (`tests/bench.py` runs it in PyTorch and transformers and prints the ratios).

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::batch::Sample;
use crate::config::Config;
use crate::learner::Learner;
use crate::model::Model;
use crate::sample::{SampleParams, sample};
use crate::weights;

/// What to run.
#[derive(Clone, Debug, Deserialize)]
pub struct Workload {
    /// A GGUF file or Hugging Face folder.
    pub model: PathBuf,
    /// `bfloat16` or `float32`: the kind of the compute weights.
    pub dtype: String,
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<i64>>,
    /// For each prompt its completions, to train on.
    pub completions: Vec<Vec<Vec<i64>>>,
    /// Advantage of each completion.
    pub advantages: Vec<Vec<f64>>,
    /// Samples per prompt, to draw.
    pub samples: usize,
    /// Tokens per sample; every sample has as many, whatever it says.
    pub max_tokens: usize,
    /// Times that each part is run, after one run that is not counted.
    pub rounds: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seconds of each training step: forward, backward, clipping, AdamW, compute weights renewed.
    pub train_s: Vec<f64>,
    /// Seconds of each round of sampling.
    pub sample_s: Vec<f64>,
    /// Mean log-prob of the completions' tokens before the first step: both programs must agree.
    pub mean_log_prob: f64,
    /// Norm of the first step's gradient.
    pub grad_norm: f64,
    /// Tokens drawn in a round.
    pub sampled_tokens: usize,
    /// Tokens trained on in a step.
    pub trained_tokens: usize,
    /// Threads that libtorch uses.
    pub threads: i32,
}

/// Runs `workload` on the CPU.
///
/// # Errors
/// When the model can't be loaded or refuses the tokens.
pub fn run(workload: &Workload) -> anyhow::Result<Report> {
    let kind = match workload.dtype.as_str() {
        "bfloat16" => Kind::BFloat16,
        "float32" => Kind::Float,
        other => anyhow::bail!("unknown dtype `{other}` (bfloat16 or float32)"),
    };
    let loaded = weights::load(&workload.model).context("load the model")?;
    let model = Model::from_tensors(loaded.config, &loaded.tensors, kind, Device::Cpu)?;
    // Without an end-of-text token every sample has the same length.
    let tokenizer = loaded.tokenizer.with_eos(Vec::new());

    let params = |seed| SampleParams {
        temperature: 1.0,
        top_p: 1.0,
        max_tokens: workload.max_tokens,
        stop: Vec::new(),
        seed,
    };
    let mut sample_s = Vec::new();
    let mut sampled_tokens = 0;
    for round in 0..=workload.rounds {
        let started = Instant::now();
        let (prompts, n) = (&workload.prompts, workload.samples);
        let drawn =
            sample(&model, &tokenizer, prompts, n, &params(round as u64), &mut |_, _, _| {})?;
        sample_s.push(started.elapsed().as_secs_f64());
        sampled_tokens = drawn.iter().flatten().map(|c| c.tokens.len()).sum();
    }

    let masters: Vec<Tensor> = loaded.tensors.into_iter().map(|(_, tensor)| tensor).collect();
    let mut learner = Learner::new(model, &masters, None, &Config::default());
    drop(masters);
    let batch = samples(&mut learner.model, workload)?;
    let log_probs = batch.iter().flat_map(|sample| &sample.sampler_log_probs);
    let trained_tokens = log_probs.clone().count();
    let mean_log_prob =
        log_probs.map(|x| f64::from(*x)).sum::<f64>() / trained_tokens.max(1) as f64;
    let (mut train_s, mut grad_norm) = (Vec::new(), 0.0);
    for round in 0..=workload.rounds {
        let started = Instant::now();
        let update = learner.update(&batch)?;
        train_s.push(started.elapsed().as_secs_f64());
        if round == 0 {
            grad_norm = update.grad_norm;
        }
    }
    Ok(Report {
        train_s: train_s.split_off(1),
        sample_s: sample_s.split_off(1),
        mean_log_prob,
        grad_norm,
        sampled_tokens,
        trained_tokens,
        threads: tch::get_num_threads(),
    })
}

/// The completions as the learner takes them: as if they had been drawn from the model as it is.
fn samples(model: &mut Model, workload: &Workload) -> anyhow::Result<Vec<Sample>> {
    let _guard = tch::no_grad_guard();
    let mut samples = Vec::new();
    let parts = workload.prompts.iter().zip(&workload.completions).zip(&workload.advantages);
    for (group, ((prompt, completions), advantages)) in parts.enumerate() {
        let whole = crate::score::Group {
            prompt,
            completions: completions.iter().map(Vec::as_slice).collect(),
        };
        let scored = model.score(&[whole], 1.0, false)?;
        let mut rest = scored.log_probs.as_slice();
        for (completion, advantage) in completions.iter().zip(advantages) {
            let (own, others) = rest.split_at(completion.len());
            samples.push(Sample {
                group,
                prompt: prompt.clone(),
                completion: completion.clone(),
                sampler_log_probs: own.to_vec(),
                advantage: *advantage,
            });
            rest = others;
        }
    }
    Ok(samples)
}
