#!/usr/bin/env python3
"""Golden numbers for `src/loss.rs`, computed apart from it: numpy, float64, numeric gradients.

    python3 trainer/tests/grpo_oracle.py > trainer/tests/fixtures/grpo.json
"""
import itertools
import json

import numpy as np

STEP = 1e-6


def loss(l, old, sampler, reference, advantage, c):
    """The per-token loss, written from the formula rather than from the Rust."""
    ratio = np.exp(np.clip(l - old, -20, 20))
    unclipped = np.minimum(ratio, c["delta"]) * advantage
    clipped = np.clip(ratio, 1 - c["epsilon"], 1 + c["epsilon"]) * advantage
    weight = np.minimum(np.exp(np.clip(old - sampler, -20, 20)), c["importance_cap"])
    policy = -weight * np.minimum(unclipped, clipped)
    if c["kl"] == 0:
        return policy
    d = np.clip(reference - l, -20, 20)
    return policy + c["kl"] * (np.exp(d) - d - 1)


def case(name, constants, rows):
    l, old, sampler, reference, advantage = (np.array(column) for column in zip(*rows))
    # The Rust reads float32 streams: start from the same numbers.
    l, old, sampler, reference, advantage = (
        x.astype(np.float32).astype(np.float64) for x in (l, old, sampler, reference, advantage)
    )
    at = lambda x: loss(x, old, sampler, reference, advantage, constants)
    mismatch = np.clip(old - sampler, -20, 20)
    ratio = np.exp(np.clip(l - old, -20, 20))
    flat = ((advantage > 0) & (ratio > 1 + constants["epsilon"])) | (
        (advantage < 0) & ((ratio < 1 - constants["epsilon"]) | (ratio > constants["delta"]))
    )
    return {
        "name": name,
        "constants": constants,
        "log_probs": l.tolist(),
        "old": old.tolist(),
        "sampler": sampler.tolist(),
        "reference": reference.tolist(),
        "advantages": advantage.tolist(),
        "loss": at(l).tolist(),
        "gradient": ((at(l + STEP) - at(l - STEP)) / (2 * STEP)).tolist(),
        "clipped": int(flat.sum()),
        "mismatch_kl": float((np.exp(mismatch) - mismatch - 1).sum()),
        "truncated_weights": int((np.exp(mismatch) > constants["importance_cap"]).sum()),
    }


plain = {"epsilon": 0.2, "delta": 4.0, "importance_cap": 2.0, "kl": 0.0}
old = -1.5
# Both signs of the advantage against every region of the ratio, the edges from both sides.
ratios = [1e-12, 1e-3, 0.5, 0.79, 0.81, 0.99, 1.0, 1.01, 1.19, 1.21, 2.0, 3.99, 4.01, 50.0, 1e12]
grid = [
    (old + np.log(ratio), old, old, old, advantage)
    for advantage, ratio in itertools.product([1.0, -1.0, 0.37, -2.5, 0.0], ratios)
]
# The sampler's share: agreement, small noise, and both sides of the cap.
weights = [
    (old + np.log(ratio), old, old - np.log(weight), old, advantage)
    for advantage, ratio, weight in itertools.product(
        [1.0, -1.0], [0.7, 1.0, 1.3, 5.0], [1e-9, 0.5, 0.97, 1.03, 1.99, 2.01, 100.0]
    )
]
kl = [
    (l, l - 0.05, l + 0.02, reference, advantage)
    for advantage, l, reference in itertools.product(
        [1.0, -1.0, 0.0], [-0.01, -1.0, -9.0], [-0.01, -1.1, -8.0, -35.0]
    )
]
print(
    json.dumps(
        {
            "cases": [
                case("advantage sign x ratio", plain, grid),
                case("importance weight", plain, weights),
                case("kl", plain | {"kl": 0.05}, kl),
                case("other constants", {"epsilon": 0.1, "delta": 1.5, "importance_cap": 5.0, "kl": 1.0}, grid + weights),
            ]
        }
    )
)
