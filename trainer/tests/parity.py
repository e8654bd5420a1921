#!/usr/bin/env python3
"""Compares our engine with Hugging Face transformers on the same GGUF, in fp32.

    trainer/tests/parity.py            compares; exit status 1 when log-probs differ by over 1e-3
    trainer/tests/parity.py FOLDER     the same with a checkpoint of ours, which transformers loads
    trainer/tests/parity.py fixtures   writes trainer/tests/fixtures/*.json anew

Makes its own venv in the cache. Fixtures hold token ids and log-probs of SmolLM2, its tokenizer's
ids of awkward strings, a rendered chat, and log-probs of small models of every architecture whose
weights are a formula (`weight` below), so that no weights need to be stored.
"""

import json
import math
import pathlib
import sys

import oracle

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
LIMIT = 1e-3

MESSAGES = [
    ("user", "Write a Python function `add(a, b)` that returns the sum of a and b."),
    ("assistant", "```python\ndef add(a, b):\n    return a + b\n```"),
]
STRINGS = [
    "", " ", "  \n\n\t x", "hello world", "Hello,  World!", "it's we'll I'D don't", "x=12345.678e-9",
    "def f(x):\n    return x**2 + 10\n", "\r\n\r\n", "naïve café ", "日本語のテキスト", "🙂🏳️‍🌈",
    "e\u0301 vs \u00e9", "a\u00a0b\u3000c", "\u0000\u0007", "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_start", "x<|endoftext|>y", "٣٤٥ ½ ²", "    leading", "trailing    ", "CamelCaseAndsnake_case",
    "```python\nprint('hi')\n```", "ﬁ ﬂ ℌ", "a" * 50, "1 22 333 4444",
]
TINY = {
    "llama_tied": dict(model_type="llama", num_key_value_heads=2, tie_word_embeddings=True),
    "llama_untied": dict(model_type="llama", num_key_value_heads=4, tie_word_embeddings=False),
    "qwen2": dict(model_type="qwen2", num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=1, tie_word_embeddings=False, head_dim=12),
}
SHAPE = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
             num_attention_heads=4, max_position_embeddings=128, rms_norm_eps=1e-6, rope_theta=5000.0,
             bos_token_id=1, eos_token_id=2)


def weight(index: int, name: str, shape):
    """The formula of a small model's parameter number `index`."""
    import torch
    count = math.prod(shape)
    i = torch.arange(count, dtype=torch.float64)
    wave = torch.sin(i * i * 0.37 + index * 1.7)
    value = 1 + 0.1 * wave if name.endswith("norm.weight") else 0.3 * wave
    return value.reshape(shape).float()


def log_probs(model, tokens):
    """Log-prob of every token but the first."""
    import torch
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].float()
    chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])
    return chosen[:, 0].tolist()


def load():
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    path = oracle.model()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers reads no pre-tokenizer from GGUF; SmolLM2's tokenizer.json has this one.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return path, tokenizer, model.eval()


def sequences(tokenizer):
    def chat(messages, generate):
        messages = [dict(role=role, content=content) for role, content in messages]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
    texts = [
        chat(MESSAGES, False),
        chat([("system", "You write code."), *MESSAGES[:1]], True),
        "The quick brown fox jumps over the lazy dog. 1 + 1 = 2, naïve café 🙂\n" * 4,
        "import math\n\n\ndef area(r: float) -> float:\n    return math.pi * r ** 2\n",
    ]
    return texts, [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def tiny_models():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    for name, options in TINY.items():
        config = AutoConfig.for_model(**{**SHAPE, **options})
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for index, (parameter, tensor) in enumerate(model.named_parameters()):
                tensor.copy_(weight(index, parameter, tensor.shape))
        tokens = [(i * i * 7 + i + 3) % SHAPE["vocab_size"] for i in range(40)]
        names = [parameter for parameter, _ in model.named_parameters()]
        yield dict(name=name, config=config.to_dict(), parameters=names, tokens=tokens,
                   log_probs=log_probs(model, tokens))


def write_fixtures():
    _, tokenizer, model = load()
    texts, ids = sequences(tokenizer)
    smollm2 = dict(
        sequences=[dict(text=text, tokens=tokens, log_probs=log_probs(model, tokens))
                   for text, tokens in zip(texts, ids)],
        strings=[dict(text=text, tokens=tokenizer(text, add_special_tokens=False).input_ids)
                 for text in STRINGS],
        chats=[dict(messages=messages,
                    text=tokenizer.apply_chat_template(
                        [dict(role=r, content=c) for r, c in messages],
                        tokenize=False, add_generation_prompt=True))
               for messages in (MESSAGES[:1], MESSAGES, [("system", "Be brief."), MESSAGES[0]])],
    )
    FIXTURES.mkdir(exist_ok=True)
    for name, data in (("smollm2", smollm2), ("tiny", list(tiny_models()))):
        rounded = json.loads(json.dumps(data), parse_float=lambda x: round(float(x), 6))
        path = FIXTURES / f"{name}.json"
        path.write_text(json.dumps(rounded, ensure_ascii=True, indent=0).replace(",\n", ",") + "\n")
        print(f"wrote {path}")


def load_checkpoint(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return folder, AutoTokenizer.from_pretrained(folder), model.eval()


def compare(path, tokenizer, model) -> int:
    _, ids = sequences(tokenizer)
    lines = "".join(json.dumps(tokens) + "\n" for tokens in ids)
    ours = oracle.ours("--example", "log_probs", "--", path, stdin=lines).splitlines()
    worst = 0.0
    for tokens, line in zip(ids, ours, strict=True):
        theirs = log_probs(model, tokens)
        difference = max(abs(a - b) for a, b in zip(json.loads(line), theirs, strict=True))
        worst = max(worst, difference)
        print(f"{len(tokens):4} tokens: largest difference {difference:.2e}")
    print(f"largest difference {worst:.2e}, limit {LIMIT:.0e}: {'ok' if worst <= LIMIT else 'FAILED'}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    oracle.enter()
    match sys.argv[1:]:
        case ["fixtures"]:
            write_fixtures()
        case [folder]:
            sys.exit(compare(*load_checkpoint(pathlib.Path(folder).resolve())))
        case _:
            sys.exit(compare(*load()))
