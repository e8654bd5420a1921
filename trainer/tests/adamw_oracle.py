#!/usr/bin/env python3
"""Ten AdamW steps by PyTorch, for `src/optim.rs` to repeat: decay, clipping by norm, warm-up.

    python3 trainer/tests/adamw_oracle.py > trainer/tests/fixtures/adamw.json    (needs torch)
"""
import json

import torch

torch.manual_seed(5)
LR, BETAS, EPS, DECAY, CLIP, WARMUP = 3e-2, (0.9, 0.95), 1e-8, 0.1, 1.0, 4
matrix = torch.randn(3, 5, requires_grad=True)  # decays
vector = torch.randn(7, requires_grad=True)  # does not
out = {
    "lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, "grad_clip": CLIP, "warmup_steps": WARMUP,
    "matrix": matrix.tolist(), "vector": vector.tolist(), "steps": [],
}  # fmt: skip
optimizer = torch.optim.AdamW(
    [{"params": [matrix], "weight_decay": DECAY}, {"params": [vector], "weight_decay": 0.0}],
    lr=LR, betas=BETAS, eps=EPS,
)  # fmt: skip
for step in range(10):
    scale = 10.0 ** (step % 3 - 1)  # some steps are clipped, some are not
    gradients = [torch.randn(3, 5) * scale, torch.randn(7) * scale]
    matrix.grad, vector.grad = (gradient.clone() for gradient in gradients)
    norm = torch.nn.utils.clip_grad_norm_([matrix, vector], CLIP)
    for group in optimizer.param_groups:
        group["lr"] = LR * min(1.0, (step + 1) / WARMUP)
    optimizer.step()
    out["steps"].append({
        "matrix_gradient": gradients[0].tolist(), "vector_gradient": gradients[1].tolist(),
        "grad_norm": norm.item(), "matrix": matrix.tolist(), "vector": vector.tolist(),
    })  # fmt: skip
print(json.dumps(out))
