"""Times PyTorch and Transformers on the work of bench/tensor-step.ts and bench/decode.ts, with the same weights.

Written with Python 3.11, torch 2.9.1, transformers 4.57.3, safetensors 0.8.0 and numpy 2.4.6; by hand, on a quiet machine:

    node --import tsx bench/peers/save-checkpoint.ts /tmp/bench-llama
    python3 -m venv /tmp/venv
    /tmp/venv/bin/pip install torch==2.9.1 transformers==4.57.3 safetensors==0.8.0 numpy==2.4.6
    /tmp/venv/bin/python bench/peers/torch_llama.py /tmp/bench-llama

Prints one JSON object a line, as the benchmarks do.
"""

import json
import statistics
import sys
import time

import torch
import transformers
from transformers import LlamaForCausalLM

ROWS, TIME = 32, 128
NEW = 128
THREADS = 2


def report(**figures):
    print(json.dumps({**figures, "torch": torch.__version__, "transformers": transformers.__version__}), flush=True)


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def time_training(folder, name, prepare, steps=24, steps_before=3):
    model = load(folder)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    forward = prepare(model)
    ids = torch.randint(0, model.config.vocab_size, (ROWS, TIME + 1))

    def step():
        logits = forward(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(steps_before):
        step()
    seconds = []
    for _ in range(steps):
        started_at = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started_at)
    median = statistics.median(seconds)
    report(
        bench="tensor-step",
        engine=name,
        secondsPerStep=round(median, 4),
        bestSeconds=round(min(seconds), 4),
        tokensPerSecond=round(ROWS * TIME / median),
    )


def time_generation(folder, rows, prompt):
    model = load(folder)
    model.eval()
    ids = torch.randint(0, model.config.vocab_size, (rows, prompt))

    def seconds(new_tokens):
        started_at = time.perf_counter()
        with torch.no_grad():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=True,
                temperature=0.7,
                top_k=0,
                pad_token_id=0,
            )
        return time.perf_counter() - started_at

    seconds(NEW)
    prompts = seconds(1)
    whole = seconds(1 + NEW)
    report(
        bench="decode",
        engine="generate",
        rows=rows,
        promptTokens=prompt,
        newTokens=NEW,
        tokensPerSecond=round(rows * NEW / (whole - prompts)),
        promptTokensPerSecond=round(rows * prompt / prompts),
    )


def main():
    folder = sys.argv[1]
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    time_training(folder, "eager", lambda model: model)
    try:
        time_training(folder, "torch.compile", torch.compile)
    except Exception as error:  # no C++ compiler on this machine, say
        print(f"torch.compile does not work here: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
    for prompt in (16, 200):
        for rows in (1, 16, 64):
            time_generation(folder, rows, prompt)


if __name__ == "__main__":
    main()
