//! Statistics of an evaluation: pass@k, and whether a difference between two evaluations is one.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// Probability that at least one of `k` samples passes, from `c` passes among `n >= k` samples,
/// without bias (Chen et al. 2021): `1 - C(n - c, k) / C(n, k)`. `None` when `k` is 0 or above `n`.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    Some(1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>())
}

/// The mean; NaN for no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation; NaN for fewer than two values.
pub fn std(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// A difference of means over the same tasks, with two 95% confidence intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Tasks that both evaluations have.
    pub tasks: usize,
    /// Mean before.
    pub before: f64,
    /// Mean after.
    pub after: f64,
    /// `after - before`.
    pub gain: f64,
    /// Student's t over the differences per task.
    pub t95: [f64; 2],
    /// Percentiles of the mean of differences when tasks are drawn again with replacement.
    pub bootstrap95: [f64; 2],
}

/// Compares two measurements of the same tasks. `None` for fewer than two pairs.
pub fn paired(before: &[f64], after: &[f64], seed: u64) -> Option<Paired> {
    if before.len() != after.len() || before.len() < 2 {
        return None;
    }
    let differences: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    let count = differences.len();
    let gain = mean(&differences);
    let half = t_quantile_975(count - 1) * std(&differences) / (count as f64).sqrt();
    let mut rng = Rng::derive(seed, 0, "bootstrap");
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..count).map(|_| differences[rng.below(count)]).sum::<f64>() / count as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let percentile = |p: f64| means[((means.len() - 1) as f64 * p).round() as usize];
    Some(Paired {
        tasks: count,
        before: mean(before),
        after: mean(after),
        gain,
        t95: [gain - half, gain + half],
        bootstrap95: [percentile(0.025), percentile(0.975)],
    })
}

/// The 97.5% quantile of Student's t with `freedom` degrees of freedom.
///
/// With `x = sqrt(v) tan(a)` the distribution function is the share of `cos(a)^(v-1)` below `a`
/// on `(-pi/2, pi/2)`; Simpson's rule and a bisection need no special functions.
fn t_quantile_975(freedom: usize) -> f64 {
    let power = freedom as i32 - 1;
    let integral = |to: f64| {
        const PIECES: usize = 2000;
        let width = to / PIECES as f64;
        let weight = |i| match i {
            0 | PIECES => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        (0..=PIECES).map(|i| weight(i) * (i as f64 * width).cos().powi(power)).sum::<f64>() * width
            / 3.0
    };
    let whole = integral(std::f64::consts::FRAC_PI_2);
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if integral(middle) < 0.95 * whole { low = middle } else { high = middle }
    }
    (freedom as f64).sqrt() * low.tan()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_by_counting() {
        let cases = [
            (4, 0, 1, Some(0.0)),
            (4, 1, 1, Some(0.25)),
            (4, 4, 1, Some(1.0)),
            (4, 2, 2, Some(1.0 - 1.0 / 6.0)), // C(2,2)/C(4,2)
            (16, 1, 16, Some(1.0)),
            (16, 0, 16, Some(0.0)),
            (5, 1, 3, Some(0.6)), // 1 - C(4,3)/C(5,3)
            (4, 1, 5, None),
            (4, 1, 0, None),
            (0, 0, 1, None),
        ];
        for (n, c, k, expected) in cases {
            let got = pass_at_k(n, c, k);
            let same = match (got, expected) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                (a, b) => a == b,
            };
            assert!(same, "pass_at_k({n}, {c}, {k}) = {got:?}, not {expected:?}");
        }
    }

    #[test]
    fn t_quantiles_as_in_the_tables() {
        for (freedom, expected) in
            [(1, 12.7062), (2, 4.3027), (5, 2.5706), (23, 2.0687), (120, 1.9799)]
        {
            let got = t_quantile_975(freedom);
            assert!((got - expected).abs() < 1e-4, "{freedom}: {got}");
        }
    }

    #[test]
    fn paired_intervals() {
        let before = [0.0, 0.1, 0.2, 0.3, 0.0, 0.5];
        let after: Vec<f64> = before.iter().map(|value| value + 0.25).collect();
        let same_shift = paired(&before, &after, 1).unwrap();
        assert!((same_shift.gain - 0.25).abs() < 1e-12);
        assert!(
            same_shift
                .t95
                .iter()
                .chain(&same_shift.bootstrap95)
                .all(|edge| (edge - 0.25).abs() < 1e-9)
        );

        let noise = paired(&[0.1, 0.4, 0.2, 0.6], &[0.4, 0.1, 0.6, 0.2], 1).unwrap();
        for interval in [noise.t95, noise.bootstrap95] {
            assert!(interval[0] < 0.0 && interval[1] > 0.0, "{interval:?}");
        }
        assert_eq!(paired(&[0.1], &[0.2], 1), None);
        assert_eq!(paired(&[0.1, 0.2], &[0.2], 1), None);
    }
}
