#!/usr/bin/env python3
"""Times a training step and a round of sampling beside PyTorch and transformers, in one run.

    trainer/tests/bench.py [--rounds 3] [--dtype bfloat16] [--json]

The workload is a step of the demo: 16 prompts x 8 completions of at most 64 tokens. Both programs
train on the same tokens with compute weights in `dtype` and fp32 masters (AdamW, gradient norm
clipped), and draw 128 samples of exactly 64 tokens at temperature 1. Mean log-prob and gradient
norm must agree: a fast wrong answer is worth nothing. Makes its own venv in the cache.
"""

import argparse
import json
import random
import statistics
import sys
import time

import oracle

TASKS = [
    "returns the sum of a and b", "returns the reverse of a string", "counts the vowels of a string",
    "returns the largest of three numbers", "says whether a number is even",
    "returns the n-th Fibonacci number", "removes duplicates from a list and keeps the order",
    "returns the words of a sentence sorted by length", "says whether a string is a palindrome",
    "returns the factorial of n", "flattens a list of lists", "returns the median of a list",
    "counts how often each character occurs", "returns the digits of a number as a list",
    "joins the items of a list with commas", "returns all divisors of a number",
]


def workload(tokenizer, path, options):
    choose = random.Random(1)
    prompts, completions, advantages = [], [], []
    for i, task in enumerate(TASKS):
        text = tokenizer.apply_chat_template(
            [dict(role="user", content=f"Write a Python function `f{i}` that {task}. "
                  "Answer with one Python code block and nothing else.")],
            tokenize=False, add_generation_prompt=True) + "```python\n"
        prompts.append(tokenizer(text, add_special_tokens=False).input_ids)
        lengths = [choose.randint(16, 64) for _ in range(8)]
        completions.append([[choose.randrange(17, 49152) for _ in range(n)] for n in lengths])
        advantages.append([choose.choice((-1.0, 1.0)) for _ in range(8)])
    return dict(model=str(path), dtype=options.dtype, prompts=prompts, completions=completions,
                advantages=advantages, samples=8, max_tokens=64, rounds=options.rounds)


def ours(work):
    return json.loads(oracle.ours("--bin", "assay-train", "--", "bench", "-", stdin=json.dumps(work)))


def theirs(work, path, micro_batch):
    import torch
    from transformers import AutoModelForCausalLM
    dtype = getattr(torch, work["dtype"])
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    masters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    model = model.to(dtype).eval()
    optimizer = torch.optim.AdamW(masters, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    def draw():
        longest = max(map(len, work["prompts"]))
        pad = [longest - len(prompt) for prompt in work["prompts"]]
        ids = torch.tensor([[2] * n + prompt for n, prompt in zip(pad, work["prompts"])])
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in pad])
        with torch.no_grad():
            out = model.generate(ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0,
                                 top_p=1.0, num_return_sequences=work["samples"], pad_token_id=2,
                                 min_new_tokens=work["max_tokens"], max_new_tokens=work["max_tokens"])
        return out.shape[0] * (out.shape[1] - longest)

    rows = [(prompt, completion, advantage)
            for prompt, completions, advantages in zip(work["prompts"], work["completions"], work["advantages"])
            for completion, advantage in zip(completions, advantages)]
    # Equal lengths side by side leave the least padding.
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    total = sum(len(completion) for _, completion, _ in rows)

    def step(learn):
        log_prob_sum = 0.0
        for start in range(0, len(rows), micro_batch):
            part = rows[start:start + micro_batch]
            longest = max(len(prompt) + len(completion) for prompt, completion, _ in part)
            ids = torch.full((len(part), longest), 2)
            mask = torch.zeros((len(part), longest), dtype=torch.long)
            where, targets, advantages = [], [], []
            for i, (prompt, completion, advantage) in enumerate(part):
                whole = prompt + completion
                ids[i, :len(whole)] = torch.tensor(whole)
                mask[i, :len(whole)] = 1
                where += [i * longest + len(prompt) - 1 + j for j in range(len(completion))]
                targets += completion
                advantages += [advantage] * len(completion)
            hidden = model.model(ids, attention_mask=mask).last_hidden_state
            hidden = hidden.flatten(0, 1)[torch.tensor(where)]
            logits = model.lm_head(hidden).float()
            log_probs = -torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none")
            log_prob_sum += log_probs.sum().item()
            # The gradient of GRPO at its first update, where the ratio is 1.
            loss = -(torch.exp(log_probs - log_probs.detach()) * torch.tensor(advantages)).sum() / total
            loss.backward()
            with torch.no_grad():
                for master, parameter in zip(masters, model.parameters()):
                    if master.grad is None:
                        master.grad = parameter.grad.float()
                    else:
                        master.grad.add_(parameter.grad)
                    parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(masters, 1.0).item()
        if learn:
            optimizer.step()
            with torch.no_grad():
                for master, parameter in zip(masters, model.parameters()):
                    parameter.copy_(master)
        optimizer.zero_grad()
        return log_prob_sum / total, norm

    report = dict(train_s=[], sample_s=[])
    for round in range(work["rounds"] + 1):
        started = time.perf_counter()
        report["sampled_tokens"] = draw()
        report["sample_s"].append(time.perf_counter() - started)
    for round in range(work["rounds"] + 1):
        started = time.perf_counter()
        mean, norm = step(True)
        report["train_s"].append(time.perf_counter() - started)
        if round == 0:
            report.update(mean_log_prob=mean, grad_norm=norm)
    for key in ("train_s", "sample_s"):
        report[key] = report[key][1:]
    return dict(report, trained_tokens=total, threads=torch.get_num_threads())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--micro-batch", type=int, default=16, help="sequences at a time in PyTorch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    from transformers import AutoTokenizer
    path = oracle.model()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    work = workload(tokenizer, path, options)
    mine, reference = ours(work), theirs(work, path, options.micro_batch)
    ratio = {key: statistics.median(mine[key]) / statistics.median(reference[key])
             for key in ("train_s", "sample_s")}
    agree = (abs(mine["mean_log_prob"] - reference["mean_log_prob"]) < 0.05
             and abs(mine["grad_norm"] / reference["grad_norm"] - 1) < 0.05
             and mine["sampled_tokens"] == reference["sampled_tokens"])
    if options.json:
        print(json.dumps(dict(assay=mine, pytorch=reference, ratio=ratio, agree=agree)))
    else:
        for name, key in (("training step", "train_s"), ("sampling", "sample_s")):
            print(f"{name}: assay {statistics.median(mine[key]):.2f} s, "
                  f"PyTorch {statistics.median(reference[key]):.2f} s, ratio {ratio[key]:.2f}")
        print(f"mean log-prob {mine['mean_log_prob']:.4f} and {reference['mean_log_prob']:.4f}, gradient "
              f"norm {mine['grad_norm']:.4f} and {reference['grad_norm']:.4f}: "
              f"{'agree' if agree else 'DISAGREE'}")
    return 0 if agree else 1


if __name__ == "__main__":
    oracle.enter()
    sys.exit(main())
