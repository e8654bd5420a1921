//! What must not depend on how a batch is cut up, and what an update must do.

use tch::Device;

use super::*;
use crate::model::{Arch, ModelConfig};
use crate::optim::AdamWConfig;
use crate::rng::Rng;

fn model_config() -> ModelConfig {
    ModelConfig {
        arch: Arch::Llama,
        vocab: 40,
        hidden: 32,
        intermediate: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        rope_theta: 10_000.0,
        rms_eps: 1e-5,
        tied: true,
        qkv_bias: false,
        qk_norm: false,
        max_positions: 64,
        bos: None,
        eos: vec![0],
    }
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config {
        optimizer: AdamWConfig { lr: 1e-2, warmup_steps: 1, ..AdamWConfig::default() },
        ..Config::default()
    };
    change(&mut config);
    config
}

fn learner(kind: Kind, config: &Config) -> Learner {
    // Larger weights than a fresh model's, so that distributions are far from uniform.
    let model = Model::random(model_config(), 3, Kind::Float, Device::Cpu);
    let masters: Vec<Tensor> = model
        .parameters()
        .iter()
        .map(|(name, tensor)| if name.contains("norm") { tensor.copy() } else { tensor * 8.0 })
        .collect();
    let reference =
        (config.loss.kl != 0.0).then(|| Model::random(model_config(), 4, kind, Device::Cpu));
    let mut learner = Learner::new(
        Model::random(model_config(), 3, kind, Device::Cpu),
        &masters,
        reference,
        config,
    );
    learner.refresh();
    learner
}

/// Five groups of up to four samples of uneven lengths, their sampler log-probs the model's own.
fn samples(learner: &mut Learner) -> Vec<Sample> {
    let mut rng = Rng::derive(1, 0, "samples");
    let mut samples = Vec::new();
    for group in 0..5 {
        let prompt: Vec<i64> = (0..2 + rng.below(6)).map(|_| rng.below(40) as i64).collect();
        for _ in 0..2 + rng.below(3) {
            let completion: Vec<i64> =
                (0..1 + rng.below(9)).map(|_| rng.below(40) as i64).collect();
            let advantage = rng.below(1000) as f64 / 500.0 - 1.0;
            samples.push(Sample {
                group,
                prompt: prompt.clone(),
                sampler_log_probs: Vec::new(),
                completion,
                advantage,
            });
        }
    }
    let streams = streams(&mut learner.model, &samples, 4096, 1.0).unwrap();
    for (sample, stream) in samples.iter_mut().zip(streams) {
        sample.sampler_log_probs = stream;
    }
    samples
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn packed_and_accumulated_as_one_batch() {
    let config = |budget| config(|config| config.loss.micro_batch_tokens = budget);
    let mut whole = learner(Kind::Float, &config(4096));
    let samples = samples(&mut whole);
    let one = whole.accumulate(&samples).unwrap();
    let gradient = numbers(&whole.adam.gradient);
    let size = gradient.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
    assert!(size > 0.1);

    // Budgets that split the batch into bins, and groups into units, down to one sample each.
    for budget in [40, 16, 1] {
        let mut cut = learner(Kind::Float, &config(budget));
        let many = cut.accumulate(&samples).unwrap();
        assert!(many.forward_tokens >= one.forward_tokens);
        assert_eq!(many.sums.tokens, one.sums.tokens);
        assert!((many.sums.loss - one.sums.loss).abs() < 1e-5, "{budget}");
        assert!((many.entropy - one.entropy).abs() < 1e-3, "{budget}");
        let difference = largest_difference(&gradient, &numbers(&cut.adam.gradient));
        assert!(difference < 2e-5 * size.max(1.0), "{budget}: {difference}");
    }

    // Nor does the order of groups matter.
    let mut turned = samples.clone();
    turned.sort_by_key(|sample| std::cmp::Reverse(sample.group));
    let mut other = learner(Kind::Float, &config(4096));
    other.accumulate(&turned).unwrap();
    let difference = largest_difference(&gradient, &numbers(&other.adam.gradient));
    assert!(difference < 2e-5 * size.max(1.0), "{difference}");
}

#[test]
fn the_first_update_after_a_refresh_clips_nothing() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let config = config(|_| {});
        let mut learner = learner(kind, &config);
        for round in 0..3 {
            let samples = samples(&mut learner);
            let update = learner.update(&samples).unwrap();
            assert_eq!(
                (update.sums.clipped, update.updates, update.skipped),
                (0.0, 1, 0),
                "{kind:?} {round}"
            );
            let mismatch_kl = update.sums.mismatch_kl / update.sums.tokens;
            let limit = if kind == Kind::Float { 1e-9 } else { 3e-3 };
            assert!(mismatch_kl <= limit, "{kind:?} {round}: {mismatch_kl}");
        }
    }
}

#[test]
fn an_update_makes_good_samples_likelier() {
    let config = config(|_| {});
    let mut learner = learner(Kind::Float, &config);
    let samples = samples(&mut learner);
    let gain = |learner: &mut Learner| -> f64 {
        let streams = streams(&mut learner.model, &samples, 4096, 1.0).unwrap();
        let gained = |(sample, stream): (&Sample, &Stream)| {
            let before: f32 = sample.sampler_log_probs.iter().sum();
            sample.advantage * f64::from(stream.iter().sum::<f32>() - before)
        };
        samples.iter().zip(&streams).map(gained).sum()
    };
    assert_eq!(gain(&mut learner), 0.0);
    let update = learner.update(&samples).unwrap();
    assert!(gain(&mut learner) > 0.1, "{update:?}");
    assert!(update.grad_norm > 0.0 && update.entropy > 0.0);
}

#[test]
fn several_steps_on_a_batch_start_to_clip_and_stay_near_the_reference() {
    let off_policy = config(|config| (config.loss.minibatches, config.loss.epochs) = (2, 4));
    let mut learner_a = learner(Kind::Float, &off_policy);
    let batch = samples(&mut learner_a);
    let update = learner_a.update(&batch).unwrap();
    assert_eq!(update.updates, 8);
    assert!(update.sums.clipped > 0.0, "{update:?}");
    assert_eq!(
        update.sums.tokens,
        4.0 * batch.iter().map(|sample| sample.completion.len()).sum::<usize>() as f64
    );

    let held = config(|config| config.loss.kl = 0.5);
    let mut learner_b = learner(Kind::Float, &held);
    let first = learner_b.update(&batch).unwrap().sums;
    for _ in 0..20 {
        learner_b.update(&batch).unwrap();
    }
    let last = learner_b.update(&batch).unwrap().sums;
    assert!(first.kl > 0.0 && last.kl < first.kl, "{} {}", first.kl, last.kl);
}

#[test]
fn a_sampler_that_disagrees_stops_the_step() {
    let config = config(|_| {});
    let mut learner = learner(Kind::Float, &config);
    let mut batch = samples(&mut learner);
    for sample in &mut batch {
        sample.sampler_log_probs.iter_mut().for_each(|log_prob| *log_prob -= 1.0);
    }
    let before = numbers(&learner.adam.masters);
    let update = learner.update(&batch).unwrap();
    assert_eq!((update.updates, update.skipped), (0, 1));
    assert_eq!(numbers(&learner.adam.masters), before);
    assert_eq!(numbers(&learner.adam.gradient.abs().max().view([1])), [0.0]);
}

#[test]
fn minibatches_hold_whole_groups() {
    let sample = |group| Sample {
        group,
        prompt: vec![1],
        completion: vec![2],
        sampler_log_probs: vec![0.0],
        advantage: 1.0,
    };
    let samples: Vec<Sample> = [0, 0, 1, 3, 3, 3, 4].map(sample).into();
    assert_eq!(minibatches(&samples, 1), [vec![0, 1, 2, 3, 4, 5, 6]]);
    assert_eq!(minibatches(&samples, 2), [vec![0, 1, 2], vec![3, 4, 5, 6]]);
    assert_eq!(minibatches(&samples, 9).len(), 4);
}
