//! AdamW over flat fp32 masters, and the schedule of its learning rate.
//!
//! All parameters lie behind each other in one fp32 tensor, as do the gradient and both moments:
//! a step is a dozen elementwise kernels instead of a dozen per parameter, the norm of the gradient
//! is one reduction, and a checkpoint is three tensors. The compute weights (bf16, say) are cast
//! from the masters after each step, so updates too small for bf16 add up instead of vanishing.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Elements that the CPU updates at a time: the four streams of a piece stay in the L2 cache.
const CPU_PIECE: i64 = 1 << 17;

/// Constants of AdamW (Loshchilov and Hutter 2019) and of the schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of matrices; vectors (norms, biases) do not decay.
    pub weight_decay: f64,
    /// The gradient's L2 norm is scaled down to this; 0: it isn't.
    pub grad_clip: f64,
    /// Steps over which the learning rate rises linearly; constant afterwards.
    pub warmup_steps: u64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            lr: 1e-5,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
            grad_clip: 1.0,
            warmup_steps: 5,
        }
    }
}

impl AdamWConfig {
    /// The learning rate of optimizer step `step`, counted from 0.
    pub fn lr_at(&self, step: u64) -> f64 {
        self.lr * ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0)
    }
}

/// Where one parameter lies in the flat tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The parameter's name, as Hugging Face calls it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its first element in the flat tensors.
    pub offset: i64,
}

impl Slot {
    /// Number of elements.
    pub fn len(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This parameter's part of a flat tensor, in its shape; shares memory with it.
    pub fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset, self.len()).view(self.shape.as_slice())
    }
}

/// Lays parameters out behind each other, in the given order.
pub fn layout<'a>(parameters: impl IntoIterator<Item = (&'a str, Vec<i64>)>) -> Vec<Slot> {
    let mut offset = 0;
    parameters
        .into_iter()
        .map(|(name, shape)| {
            let slot = Slot { name: name.to_owned(), shape, offset };
            offset += slot.len();
            slot
        })
        .collect()
}

/// The masters, their gradient and the optimizer's state: flat fp32 tensors of one layout.
#[derive(Debug)]
pub struct AdamW {
    /// Constants; may be changed between steps.
    pub config: AdamWConfig,
    /// Steps taken.
    pub steps: u64,
    /// Where each parameter lies.
    pub slots: Vec<Slot>,
    /// The weights that learn.
    pub masters: Tensor,
    /// What micro-batches add to; zero after a step.
    pub gradient: Tensor,
    /// Exponential mean of the gradient.
    pub first: Tensor,
    /// Exponential mean of its square.
    pub second: Tensor,
}

impl AdamW {
    /// An optimizer that has taken no step, over `masters` (flat fp32, as `slots` say).
    pub fn new(config: AdamWConfig, slots: Vec<Slot>, masters: Tensor) -> Self {
        let zeros = || masters.zeros_like();
        let (gradient, first, second) = (zeros(), zeros(), zeros());
        Self { config, steps: 0, slots, masters, gradient, first, second }
    }

    /// Takes a step with the gradient gathered so far, times `scale`, and forgets the gradient.
    /// Returns the gradient's norm before clipping. A norm that is not finite changes nothing but
    /// the gradient, which is dropped.
    pub fn step(&mut self, scale: f64) -> f64 {
        let _guard = tch::no_grad_guard();
        let norm = self.gradient.norm().double_value(&[]) * scale;
        if norm.is_finite() {
            // The same quotient as PyTorch's clip_grad_norm_.
            let clip = match self.config.grad_clip {
                limit if limit > 0.0 => (limit / (norm + 1e-6)).min(1.0),
                _ => 1.0,
            };
            self.update(scale * clip);
        }
        let _ = self.gradient.zero_();
        norm
    }

    fn update(&mut self, scale: f64) {
        let AdamWConfig { betas: [beta1, beta2], eps, weight_decay, .. } = self.config;
        let lr = self.config.lr_at(self.steps);
        self.steps += 1;
        if weight_decay != 0.0 {
            for slot in self.slots.iter().filter(|slot| slot.shape.len() > 1) {
                let _ = slot.view(&self.masters).g_mul_scalar_(1.0 - lr * weight_decay);
            }
        }
        let correction1 = 1.0 - beta1.powf(self.steps as f64);
        let correction2 = 1.0 - beta2.powf(self.steps as f64);
        let total = self.masters.numel() as i64;
        let piece = if self.masters.device() == Device::Cpu { CPU_PIECE } else { total };
        for start in (0..total).step_by(piece.max(1) as usize) {
            let part = |flat: &Tensor| flat.narrow(0, start, piece.min(total - start));
            let (mut weights, mut first, mut second) =
                (part(&self.masters), part(&self.first), part(&self.second));
            let mut gradient = part(&self.gradient) * scale;
            let _ = first.lerp_(&gradient, 1.0 - beta1);
            let _ = gradient.g_mul_scalar_((1.0 - beta2).sqrt());
            let _ = second.g_mul_scalar_(beta2).addcmul_(&gradient, &gradient);
            let mut denominator = second.sqrt();
            let _ = denominator.g_mul_scalar_(1.0 / correction2.sqrt()).g_add_scalar_(eps);
            let _ = weights.addcdiv_(&(first * (-lr / correction1)), &denominator);
        }
    }

    /// One view per parameter into the masters, in the order of the slots.
    pub fn master_views(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.view(&self.masters)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        lr: f64,
        betas: [f64; 2],
        eps: f64,
        weight_decay: f64,
        grad_clip: f64,
        warmup_steps: u64,
        matrix: Vec<Vec<f32>>,
        vector: Vec<f32>,
        steps: Vec<GoldenStep>,
    }

    #[derive(Deserialize)]
    struct GoldenStep {
        matrix_gradient: Vec<Vec<f32>>,
        vector_gradient: Vec<f32>,
        grad_norm: f64,
        matrix: Vec<Vec<f32>>,
        vector: Vec<f32>,
    }

    fn add(adam: &AdamW, slot: usize, gradient: &Tensor) {
        let _ = adam.slots[slot].view(&adam.gradient).g_add_(gradient);
    }

    #[test]
    fn ten_steps_as_pytorch_takes_them() {
        let golden: Golden =
            serde_json::from_str(include_str!("../tests/fixtures/adamw.json")).unwrap();
        let flat =
            |matrix: &[Vec<f32>], vector: &[f32]| [matrix.concat(), vector.to_vec()].concat();
        let config = AdamWConfig {
            lr: golden.lr,
            betas: golden.betas,
            eps: golden.eps,
            weight_decay: golden.weight_decay,
            grad_clip: golden.grad_clip,
            warmup_steps: golden.warmup_steps,
        };
        let slots = layout([("matrix", vec![3, 5]), ("vector", vec![7])]);
        let start = flat(&golden.matrix, &golden.vector);
        let mut adam = AdamW::new(config, slots, Tensor::from_slice(&start));
        for (number, step) in golden.steps.iter().enumerate() {
            // In two halves, as micro-batches would, and scaled as by a token count of 4.
            for _ in 0..2 {
                add(&adam, 0, &(Tensor::from_slice2(&step.matrix_gradient) * 2.0));
                add(&adam, 1, &(Tensor::from_slice(&step.vector_gradient) * 2.0));
            }
            let norm = adam.step(0.25);
            assert!((norm / step.grad_norm - 1.0).abs() < 1e-5, "step {number}: norm {norm}");
            let expected = flat(&step.matrix, &step.vector);
            for (i, value) in expected.iter().enumerate() {
                let got = adam.masters.double_value(&[i as i64]);
                assert!(
                    (got - f64::from(*value)).abs() < 2e-6,
                    "step {number}, {i}: {got} is not {value}"
                );
            }
        }
        assert_eq!(adam.gradient.abs().sum(Kind::Float).double_value(&[]), 0.0);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut adam = AdamW::new(
            AdamWConfig::default(),
            layout([("w", vec![3])]),
            Tensor::ones([3], (Kind::Float, Device::Cpu)),
        );
        add(&adam, 0, &Tensor::from_slice(&[1.0_f32, f32::NAN, 0.0]));
        assert!(adam.step(1.0).is_nan());
        assert_eq!(Vec::<f32>::try_from(&adam.masters).unwrap(), [1.0; 3]);
        assert_eq!(Vec::<f32>::try_from(&adam.gradient).unwrap(), [0.0; 3]);
        assert_eq!(adam.steps, 0);
    }
}
