//! The model engine against Hugging Face transformers (fixtures made by `parity.py`) and against
//! itself: packed, grouped, chunked and cached paths must agree with the plain one.

use std::path::{Path, PathBuf};

use assay_trainer::model::{Arch, Model, ModelConfig, ModelError, NamedTensors};
use assay_trainer::sample::{Completion, FinishReason, SampleParams, sample};
use assay_trainer::score::Group;
use assay_trainer::tokenizer::Tokenizer;
use assay_trainer::weights::{self, Loaded};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tokens(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn messages(value: &Value) -> Vec<(&str, &str)> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m[0].as_str().unwrap(), m[1].as_str().unwrap()))
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Path of SmolLM2 when `make model` has fetched it.
fn smollm2() -> Option<PathBuf> {
    let root = std::env::var_os("ASSAY_CACHE").map(PathBuf::from).or_else(|| {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("assay"))
    })?;
    let path = root.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("skipped: no {}; run `make model`", path.display());
    }
    path.exists().then_some(path)
}

fn log_probs(model: &mut Model, tokens: &[i64]) -> Vec<f32> {
    let group = Group { prompt: &tokens[..1], completions: vec![&tokens[1..]] };
    model.score(&[group], 1.0, false).unwrap().log_probs
}

#[test]
fn smollm2_equals_transformers() {
    let Some(path) = smollm2() else { return };
    let Loaded { config, tensors, tokenizer } = weights::load(&path).unwrap();
    let fixture = fixture("smollm2.json");

    for case in fixture["strings"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), tokens(&case["tokens"]), "{text:?}");
    }
    for case in fixture["chats"].as_array().unwrap() {
        let rendered = tokenizer.render_chat(&messages(&case["messages"])).unwrap();
        assert_eq!(rendered, case["text"].as_str().unwrap());
    }
    let mut model = Model::from_tensors(config, &tensors, Kind::Float, Device::Cpu).unwrap();
    for case in fixture["sequences"].as_array().unwrap() {
        let ids = tokens(&case["tokens"]);
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap()).unwrap(), ids);
        let difference =
            largest_difference(&log_probs(&mut model, &ids), &floats(&case["log_probs"]));
        println!("{} tokens: largest difference {difference:.2e}", ids.len());
        assert!(difference < 1e-3, "{difference}");
    }
}

/// The formula of `parity.py`: parameter number `index`.
fn weight(index: usize, name: &str, shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let value = |i: i64| {
        let i = i as f64;
        let wave = (i * i * 0.37 + index as f64 * 1.7).sin();
        (if name.ends_with("norm.weight") { 1.0 + 0.1 * wave } else { 0.3 * wave }) as f32
    };
    Tensor::from_slice(&(0..count).map(value).collect::<Vec<_>>()).reshape(shape)
}

fn tiny_config(arch: Arch) -> ModelConfig {
    ModelConfig {
        arch,
        vocab: 61,
        hidden: 32,
        intermediate: 48,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: if arch == Arch::Qwen3 { 12 } else { 8 },
        rope_theta: 5000.0,
        rms_eps: 1e-6,
        tied: arch != Arch::Qwen3,
        qkv_bias: arch == Arch::Qwen2,
        qk_norm: arch == Arch::Qwen3,
        max_positions: 128,
        bos: Some(1),
        eos: vec![2],
    }
}

#[test]
fn small_models_of_every_architecture_equal_transformers() {
    for case in fixture("tiny.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        // Through the files, so that config.json and the names are part of the test.
        let folder = tempfile::tempdir().unwrap();
        let text = serde_json::to_vec(&case["config"]).unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let config = weights::read_config(&folder.path().join("config.json")).unwrap();
        let shapes: std::collections::HashMap<_, _> =
            config.parameter_shapes().into_iter().collect();
        let tensors: NamedTensors = case["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let name = name.as_str().unwrap();
                (name.to_owned(), weight(index, name, &shapes[name]))
            })
            .collect();
        let mut model = Model::from_tensors(config, &tensors, Kind::Float, Device::Cpu).unwrap();
        let ours = log_probs(&mut model, &tokens(&case["tokens"]));
        let difference = largest_difference(&ours, &floats(&case["log_probs"]));
        println!("{name}: largest difference {difference:.2e}");
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

fn sequence(length: usize, seed: usize) -> Vec<i64> {
    (0..length).map(|i| ((i * i * 7 + i * seed + 3 * seed) % 61) as i64).collect()
}

fn tiny(arch: Arch) -> Model {
    // Too small to share: a second thread only waits. Holds for the calling thread alone.
    tch::set_num_threads(1);
    let config = tiny_config(arch);
    let tensors = config
        .parameter_shapes()
        .into_iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let tensor = weight(index, &name, &shape);
            (name, tensor)
        })
        .collect();
    Model::from_tensors(config, &tensors, Kind::Float, Device::Cpu).unwrap()
}

#[test]
fn groups_and_packs_score_as_separate_sequences_do() {
    for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3] {
        let mut model = tiny(arch);
        let prompts = [sequence(9, 1), sequence(4, 2), sequence(1, 3)];
        // Ragged, equal, single-token and empty completions.
        let lengths: [&[usize]; 3] = [&[5, 1, 8, 0], &[6, 6], &[3, 0, 1]];
        let completions: Vec<Vec<Vec<i64>>> = lengths
            .iter()
            .map(|lengths| lengths.iter().enumerate().map(|(i, n)| sequence(*n, 5 + i)).collect())
            .collect();
        let groups: Vec<Group<'_>> = prompts
            .iter()
            .zip(&completions)
            .map(|(prompt, completions)| Group {
                prompt,
                completions: completions.iter().map(Vec::as_slice).collect(),
            })
            .collect();
        let together = model.score(&groups, 0.7, true).unwrap();
        let (mut separate, mut entropy) = (Vec::new(), Vec::new());
        for group in &groups {
            for completion in &group.completions {
                let one = Group { prompt: group.prompt, completions: vec![completion] };
                let one = model.score(&[one], 0.7, true).unwrap();
                separate.extend(one.log_probs);
                entropy.extend(one.entropy);
            }
        }
        assert!(largest_difference(&together.log_probs, &separate) < 1e-5);
        assert!(largest_difference(&together.entropy, &entropy) < 1e-5);

        // And as the plain packed forward pass and the plain head do.
        let whole: Vec<i64> = prompts[0].iter().chain(&completions[0][2]).copied().collect();
        let other = sequence(5, 9);
        let packed = Tensor::from_slice(&[whole.clone(), other].concat());
        let hidden = model.hidden(&packed, &[whole.len() as i64, 5]);
        let rows = hidden.narrow(0, 8, 8);
        let targets = Tensor::from_slice(&completions[0][2]);
        let plain = model.log_probs(&rows, &targets, 0.7, false).values;
        let plain = Vec::<f32>::try_from(plain).unwrap();
        assert!(largest_difference(&plain, &separate[6..14]) < 1e-5);
    }
}

/// The gradient of `sum derivative * log_prob` by autograd over separate, plain sequences.
fn plain_gradients(model: &mut Model, groups: &[Group<'_>], derivative: &[f32]) -> Vec<Tensor> {
    let config = model.config().clone();
    let mut total: Vec<Tensor> =
        model.parameters().iter().map(|(_, p)| Tensor::zeros_like(p)).collect();
    let mut at = 0;
    for group in groups {
        for completion in &group.completions {
            let one = Group { prompt: group.prompt, completions: vec![completion] };
            let scored = model.score(&[one], 1.3, false).unwrap();
            scored.backward(&derivative[at..at + completion.len()]);
            at += completion.len();
            model.take_gradients(&mut total);
        }
    }
    assert_eq!(total.len(), config.parameter_shapes().len());
    total
}

#[test]
fn a_group_has_the_gradient_of_its_separate_sequences() {
    for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3] {
        let mut model = tiny(arch);
        model.set_training(true);
        let (prompt, other) = (sequence(7, 1), sequence(3, 8));
        let completions = [sequence(5, 2), sequence(1, 3), sequence(9, 4)];
        let groups = [
            Group { prompt: &prompt, completions: completions.iter().map(Vec::as_slice).collect() },
            Group { prompt: &other, completions: vec![&completions[0], &completions[0]] },
        ];
        let derivative: Vec<f32> = (0..25).map(|i| (i as f32 * 0.9).cos()).collect();
        let expected = plain_gradients(&mut model, &groups, &derivative);

        let mut total: Vec<Tensor> =
            model.parameters().iter().map(|(_, p)| Tensor::zeros_like(p)).collect();
        model.score(&groups, 1.3, false).unwrap().backward(&derivative);
        model.take_gradients(&mut total);
        for (((name, _), a), b) in model.parameters().iter().zip(&total).zip(&expected) {
            let scale = b.abs().max().double_value(&[]);
            let difference = (a - b).abs().max().double_value(&[]);
            assert!(scale > 0.0, "{name} has a gradient");
            assert!(difference < 1e-4 * scale.max(1.0), "{arch:?} {name}: {difference} of {scale}");
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let mut model = tiny(Arch::Llama);
    let (prompt, completion) = (sequence(5, 1), sequence(6, 2));
    let groups =
        || [Group { prompt: &prompt, completions: vec![&completion[..], &completion[..3]] }];
    let derivative: Vec<f32> = (0..9).map(|i| 1.0 - 0.2 * i as f32).collect();
    model.set_training(true);
    let mut gradients: Vec<Tensor> =
        model.parameters().iter().map(|(_, p)| Tensor::zeros_like(p)).collect();
    model.score(&groups(), 0.8, false).unwrap().backward(&derivative);
    model.take_gradients(&mut gradients);
    model.set_training(false);

    let masters: Vec<Tensor> = model.parameters().iter().map(|(_, p)| p.copy()).collect();
    let mut loss = |masters: &[Tensor]| -> f64 {
        model.load_parameters_from(masters);
        let scored = model.score(&groups(), 0.8, false).unwrap();
        scored.log_probs.iter().zip(&derivative).map(|(l, d)| f64::from(l * d)).sum()
    };
    // Along the gradient the loss changes by its squared norm.
    let norm =
        gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum::<f64>();
    let step = 1e-3 / norm.sqrt();
    let moved = |sign: f64| -> Vec<Tensor> {
        masters.iter().zip(&gradients).map(|(m, g)| m + g * (sign * step)).collect()
    };
    let slope = (loss(&moved(1.0)) - loss(&moved(-1.0))) / (2.0 * step);
    assert!((slope / norm - 1.0).abs() < 1e-2, "slope {slope}, squared norm {norm}");
}

fn params(temperature: f64, max_tokens: usize) -> SampleParams {
    SampleParams { temperature, top_p: 1.0, max_tokens, stop: Vec::new(), seed: 7 }
}

/// A model over bytes that says something other than one letter.
fn byte_model(arch: Arch) -> Model {
    tch::set_num_threads(1);
    let tokenizer = Tokenizer::bytes();
    let config = ModelConfig { vocab: tokenizer.size(), eos: vec![256], ..tiny_config(arch) };
    let tensors = config.parameter_shapes().into_iter().enumerate();
    let tensors = tensors.map(|(index, (name, shape))| {
        let tensor = weight(index, &name, &shape);
        (name, tensor)
    });
    Model::from_tensors(config, &tensors.collect(), Kind::Float, Device::Cpu).unwrap()
}

/// The sampler's log-probs against the full forward pass, token by token.
fn cached_difference(model: &mut Model, completions: &[Vec<Completion>], temperature: f64) -> f32 {
    let mut worst = 0.0_f32;
    for drawn in completions {
        let prompt = &drawn[0].prompt_tokens;
        let group = Group { prompt, completions: drawn.iter().map(|c| &c.tokens[..]).collect() };
        let scored = model.score(&[group], temperature, false).unwrap();
        let sampled: Vec<f32> = drawn.iter().flat_map(|c| c.log_probs.clone()).collect();
        worst = worst.max(largest_difference(&scored.log_probs, &sampled));
    }
    worst
}

#[test]
fn decoding_with_the_cache_equals_the_full_forward_pass() {
    let tokenizer = Tokenizer::bytes();
    // Ragged prompts, rows that end at different times (eos is likely enough), two cache columns'
    // growth (100 tokens), and samples that fill more than one wave.
    let prompts: Vec<Vec<i64>> = (0..5).map(|i| sequence(1 + 5 * i, i + 1)).collect();
    for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3] {
        let mut model = byte_model(arch);
        let mut heard = Vec::new();
        let completions =
            sample(&model, &tokenizer, &prompts, 52, &params(1.1, 100), &mut |p, i, c| {
                heard.push((p, i, c.tokens.len()));
            })
            .unwrap();
        assert_eq!(completions.iter().map(Vec::len).collect::<Vec<_>>(), [52; 5]);
        assert_eq!(heard.len(), 260, "each end is heard once");
        assert!(completions.iter().flatten().any(|c| c.finish_reason == FinishReason::Eos));
        assert!(completions.iter().flatten().any(|c| c.finish_reason == FinishReason::Length));
        let difference = cached_difference(&mut model, &completions, 1.1);
        println!("{arch:?}: largest difference {difference:.2e}");
        assert!(difference < 1e-4, "{arch:?}: {difference}");
    }
}

#[test]
fn samples_depend_on_the_seed_and_not_on_the_batch() {
    let (model, tokenizer) = (byte_model(Arch::Llama), Tokenizer::bytes());
    let prompts = [sequence(6, 1), sequence(9, 2)];
    let draw = |prompts: &[Vec<i64>], n, params: &SampleParams| {
        sample(&model, &tokenizer, prompts, n, params, &mut |_, _, _| {}).unwrap()
    };
    let base = draw(&prompts, 4, &params(1.0, 20));
    let tokens = |drawn: &[Vec<Completion>]| -> Vec<Vec<i64>> {
        drawn.iter().flatten().map(|c| c.tokens.clone()).collect()
    };
    assert_eq!(tokens(&base), tokens(&draw(&prompts, 4, &params(1.0, 20))), "the same seed");
    let other = SampleParams { seed: 8, ..params(1.0, 20) };
    assert_ne!(tokens(&base), tokens(&draw(&prompts, 4, &other)), "another seed");
    let alone = draw(&prompts[..1], 2, &params(1.0, 20));
    for (a, b) in alone[0].iter().zip(&base[0]) {
        assert_eq!(a.tokens, b.tokens, "fewer neighbours");
    }
    let greedy = draw(&prompts, 3, &params(0.0, 20));
    assert!(greedy[0].iter().all(|c| c.tokens == greedy[0][0].tokens));
    let nucleus = SampleParams { top_p: 1e-9, ..params(1.0, 20) };
    assert_eq!(draw(&prompts, 1, &nucleus)[0][0].tokens, greedy[0][0].tokens, "top-p of almost 0");
    let none = draw(&prompts, 2, &params(1.0, 0));
    assert!(none.iter().flatten().all(|c| c.tokens.is_empty()));
}

#[test]
fn samples_follow_the_distribution() {
    let (mut model, tokenizer) = (byte_model(Arch::Llama), Tokenizer::bytes());
    let prompt = sequence(6, 3);
    for (temperature, top_p) in [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5)] {
        let params = SampleParams { top_p, ..params(temperature, 1) };
        let n = 4000;
        let drawn = sample(
            &model,
            &tokenizer,
            std::slice::from_ref(&prompt),
            n,
            &params,
            &mut |_, _, _| {},
        );
        let mut counts = vec![0.0_f64; 257];
        for completion in &drawn.unwrap()[0] {
            counts[completion.tokens[0] as usize] += 1.0;
        }
        let every: Vec<[i64; 1]> = (0..257).map(|id| [id]).collect();
        let group = Group { prompt: &prompt, completions: every.iter().map(|c| &c[..]).collect() };
        let scored = model.score(&[group], temperature, false).unwrap();
        let mut p: Vec<(f64, usize)> =
            scored.log_probs.iter().enumerate().map(|(i, l)| (f64::from(*l).exp(), i)).collect();
        p.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut kept, mut sum) = (Vec::new(), 0.0);
        for (p, id) in p {
            if sum < top_p {
                kept.push((p, id));
                sum += p;
            }
        }
        let inside: f64 = kept.iter().map(|(_, id)| counts[*id]).sum();
        assert_eq!(inside as usize, n, "nothing outside the nucleus");
        // Pearson's statistic over the tokens that are expected often enough.
        let often = kept.iter().filter(|(p, _)| p / sum * n as f64 > 5.0);
        let terms: Vec<f64> = often
            .map(|(p, id)| {
                let expected = p / sum * n as f64;
                (counts[*id] - expected).powi(2) / expected
            })
            .collect();
        let (statistic, freedom) = (terms.iter().sum::<f64>(), terms.len() as f64);
        let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
        assert!(statistic < limit, "T {temperature}, top-p {top_p}: {statistic:.0} of {limit:.0}");
    }
}

#[test]
fn a_stop_string_ends_a_sample() {
    let (model, tokenizer) = (byte_model(Arch::Llama), Tokenizer::bytes());
    let prompts = [sequence(6, 1)];
    let draw = |params: &SampleParams| {
        sample(&model, &tokenizer, &prompts, 30, params, &mut |_, _, _| {}).unwrap().remove(0)
    };
    let free = draw(&params(1.0, 40));
    // Two characters that some sample holds: its run up to there must be found again.
    let (whole, stop) = free
        .iter()
        .find_map(|c| Some((c, c.text.get(10..12)?.to_owned())))
        .expect("a sample with ascii text");
    let stopped =
        draw(&SampleParams { stop: vec![String::new(), stop.clone()], ..params(1.0, 40) });
    let index = free.iter().position(|c| c == whole).unwrap();
    assert_eq!(stopped[index].finish_reason, FinishReason::Stop);
    for (free, stopped) in free.iter().zip(&stopped) {
        assert!(free.tokens.starts_with(&stopped.tokens));
        match free.text.find(&stop) {
            Some(at) => assert_eq!(stopped.text, free.text[..at + stop.len()]),
            None => {
                assert_eq!(stopped.tokens, free.tokens);
                assert_eq!(stopped.finish_reason, free.finish_reason);
            }
        }
    }
}

#[test]
fn smollm2_decodes_as_it_scores() {
    let Some(path) = smollm2() else { return };
    let Loaded { config, tensors, tokenizer } = weights::load(&path).unwrap();
    let chat = |text| {
        let text = tokenizer.render_chat(&[("user", text)]).unwrap() + "```python\n";
        tokenizer.encode(&text).unwrap()
    };
    let prompts = [
        chat("Write `add(a, b)` in Python."),
        chat("Write a Python function that reverses a string."),
    ];
    let params = SampleParams { stop: vec!["\n```".to_owned()], ..params(1.0, 32) };
    for (kind, limit, kl_limit) in
        [(Kind::Float, 2e-4, 1e-8), (Kind::BFloat16, f32::INFINITY, 3e-3)]
    {
        let mut model = Model::from_tensors(config.clone(), &tensors, kind, Device::Cpu).unwrap();
        let drawn = sample(&model, &tokenizer, &prompts, 8, &params, &mut |_, _, _| {}).unwrap();
        let difference = cached_difference(&mut model, &drawn, 1.0);
        // The estimator exp(r) - 1 - r of KL(sampler || trainer), as the trainer reports it.
        let mut terms = Vec::new();
        for completion in drawn.iter().flatten() {
            let group =
                Group { prompt: &completion.prompt_tokens, completions: vec![&completion.tokens] };
            let scored = model.score(&[group], 1.0, false).unwrap();
            let ratio =
                scored.log_probs.iter().zip(&completion.log_probs).map(|(a, b)| f64::from(a - b));
            terms.extend(ratio.map(|r| r.exp() - 1.0 - r));
        }
        let kl = terms.iter().sum::<f64>() / terms.len() as f64;
        println!(
            "{kind:?}: {} tokens, largest difference {difference:.2e}, KL {kl:.2e}",
            terms.len()
        );
        assert!(difference < limit, "{kind:?}: {difference}");
        assert!(kl < kl_limit, "{kind:?}: {kl}");
    }
}

#[test]
fn a_model_survives_a_round_trip_through_files() {
    let Some(path) = smollm2() else { return };
    let mut loaded = weights::load(&path).unwrap();
    // A model of two blocks is as good and quicker.
    loaded.config.layers = 2;
    let names: Vec<String> =
        loaded.config.parameter_shapes().into_iter().map(|(name, _)| name).collect();
    loaded.tensors.retain(|(name, _)| names.contains(name));
    let folder = tempfile::tempdir().unwrap();
    weights::save_hf(folder.path(), &loaded.config, &loaded.tensors, Some(&loaded.tokenizer))
        .unwrap();
    let again = weights::load(folder.path()).unwrap();
    assert_eq!(again.config, loaded.config);
    for ((name, a), (other, b)) in loaded.tensors.iter().zip(&again.tensors) {
        assert_eq!(name, other);
        assert!(a.equal(b), "{name}");
    }
    let text = "def f(x):\n    return x + 12 # <|im_end|>";
    assert_eq!(again.tokenizer.encode(text).unwrap(), loaded.tokenizer.encode(text).unwrap());
    let chat = [("user", "hi")];
    let render = |tokenizer: &Tokenizer| tokenizer.render_chat(&chat).unwrap();
    assert_eq!(render(&again.tokenizer), render(&loaded.tokenizer));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut model = tiny(Arch::Llama);
    let prompt = [1_i64, 2];
    let mut score = |prompt: &[i64], completion: &[i64]| {
        let group = Group { prompt, completions: vec![completion] };
        model.score(&[group], 1.0, false).err()
    };
    assert!(matches!(score(&[], &[1]), Some(ModelError::EmptyPrompt)));
    assert!(matches!(score(&prompt, &[61]), Some(ModelError::Token { token: 61, vocab: 61 })));
    assert!(matches!(score(&[-1], &[1]), Some(ModelError::Token { token: -1, .. })));
    assert!(matches!(score(&prompt, &[1; 127]), Some(ModelError::TooLong { length: 129, .. })));
    assert!(score(&prompt, &[1; 126]).is_none());

    let config = tiny_config(Arch::Llama);
    let build = |tensors: &NamedTensors| {
        Model::from_tensors(config.clone(), tensors, Kind::Float, Device::Cpu).err()
    };
    let mut tensors: NamedTensors =
        model.parameters().iter().map(|(name, p)| (name.clone(), p.copy())).collect();
    assert!(build(&tensors).is_none());
    tensors[3].1 = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
    assert!(matches!(build(&tensors), Some(ModelError::Shape { .. })));
    drop(tensors.remove(3));
    assert!(matches!(build(&tensors), Some(ModelError::Missing(_))));
}

#[test]
fn folders_that_contradict_themselves_are_refused() {
    let tokenizer = Tokenizer::bytes();
    let config =
        ModelConfig { vocab: tokenizer.size(), eos: vec![256], ..tiny_config(Arch::Qwen2) };
    let model = Model::random(config.clone(), 3, Kind::Float, Device::Cpu);
    let tensors: NamedTensors =
        model.parameters().iter().map(|(name, p)| (name.clone(), p.copy())).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let save = || weights::save_hf(folder.path(), &config, &tensors, Some(&tokenizer)).unwrap();
    let error = || weights::load(folder.path()).unwrap_err().to_string();
    save();
    let loaded = weights::load(folder.path()).unwrap();
    assert_eq!(loaded.config, config);
    assert!(loaded.tensors.iter().zip(&tensors).all(|(a, b)| a.0 == b.0 && a.1.equal(&b.1)));

    // The same weights in two files behind an index.
    let shard = |name: &str, part: &[(String, Tensor)]| {
        let other = tempfile::tempdir().unwrap();
        let part = part.iter().map(|(name, p)| (name.clone(), p.shallow_clone())).collect();
        weights::save_hf(other.path(), &config, &part, None).unwrap();
        std::fs::copy(other.path().join("model.safetensors"), path(name)).unwrap();
    };
    let (first, second) = tensors.split_at(5);
    shard("a.safetensors", first);
    shard("b.safetensors", second);
    std::fs::remove_file(path("model.safetensors")).unwrap();
    let index = |files: [&str; 2]| {
        let map = serde_json::json!({ "weight_map": { "x": files[0], "y": files[1] } });
        std::fs::write(path("model.safetensors.index.json"), map.to_string()).unwrap();
    };
    index(["a.safetensors", "b.safetensors"]);
    let sharded = weights::load(folder.path()).unwrap();
    assert!(sharded.tensors.iter().zip(&tensors).all(|(a, b)| a.1.equal(&b.1)));
    index(["a.safetensors", "a.safetensors"]);
    assert!(error().contains("expected tensor `"), "{}", error());
    index(["a.safetensors", "../b.safetensors"]);
    assert!(error().contains("expected a file name"), "{}", error());
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();

    save();
    let bytes = std::fs::read(path("model.safetensors")).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(path("model.safetensors"), &bytes[..length]).unwrap();
        assert!(error().contains("model.safetensors"), "cut at {length}: {}", error());
    }
    let text = std::fs::read_to_string(path("config.json"));
    save();
    let text = text.unwrap();
    let edits = [
        ("\"vocab_size\": 257", "\"vocab_size\": 200", "special token 256"),
        ("\"vocab_size\": 257", "\"vocab_size\": 300", "expected shape [300, 32]"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "not a multiple"),
        ("\"qwen2\"", "\"gpt2\"", "model_type gpt2 is not supported"),
        ("\"silu\"", "\"gelu\"", "hidden_act"),
        ("\"hidden_size\": 32", "\"hidden_size\": 0", "hidden size 0"),
        ("\"head_dim\": 8", "\"head_dim\": 7", "odd"),
        (
            "\"rope_theta\": 5000.0",
            "\"rope_scaling\": {\"rope_type\": \"yarn\"}",
            "rope type `yarn`",
        ),
        ("{", "", "not JSON"),
    ];
    for (from, to, expected) in edits {
        assert!(text.contains(from), "{from}");
        std::fs::write(path("config.json"), text.replacen(from, to, 1)).unwrap();
        assert!(error().contains(expected), "{to}: {}", error());
    }
    // Fewer embedding rows than tokens.
    let small = ModelConfig { vocab: 250, eos: Vec::new(), ..config.clone() };
    let model = Model::random(small.clone(), 3, Kind::Float, Device::Cpu);
    let tensors = model.parameters().iter().map(|(name, p)| (name.clone(), p.copy())).collect();
    weights::save_hf(folder.path(), &small, &tensors, Some(&tokenizer)).unwrap();
    let message = error();
    assert!(message.contains("257 tokens, but the embedding 250 rows"), "{message}");
}
