"""Times a real checkpoint in process against PyTorch with transformers, and decoding against llama.cpp's server: loading,
reading a prompt of 512 tokens, decoding 64 tokens at batch 1 and 16, a step of LoRA on 8 sequences of 256 tokens. Same weights,
float32, two threads.

    python3.11 -m venv /tmp/venv
    /tmp/venv/bin/pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    /tmp/venv/bin/python bench/peers/real_model.py <checkpoint folder> [--gguf model.gguf, with xllamacpp 2026.10.11549]

Each measure of each side is a process of its own, one after the other, in turns; the wall's and the processor's seconds are
printed, and the most memory that the process held. On a busy machine only the processor's say much; there set
OMP_WAIT_POLICY=passive. First come the logits: PyTorch's float32, and ours on the way that training takes and on the one that
decoding takes, against PyTorch's float64, relative to the spread of those.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT, NEW, LONG = 64, 64, 512
STEP_ROWS, STEP_TIME = 8, 256

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--threads", type=int, default=2, help="of PyTorch and llama.cpp; and our workers")
parser.add_argument("--only", help="one measure")
parser.add_argument("--gguf", help="the same model for llama.cpp")
parser.add_argument("--torch", nargs=2, metavar=("MEASURE", "ROWS"), help=argparse.SUPPRESS)
parser.add_argument("--llama", metavar="ROWS", type=int, help=argparse.SUPPRESS)
args = parser.parse_args()


def say(**figures):
    # What this program held, where `ru_maxrss` begins with what its parent did.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    print(json.dumps({**figures, "peakMiB": round(peak / 1024)}), flush=True)


def timed(work):
    """Seconds of the wall and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def side_of_torch(measure, rows):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    began = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    loading = time.perf_counter() - began
    vocabulary = model.config.vocab_size
    if measure == "load":
        return say(loadSeconds=loading)
    if measure == "step":
        return step_of_torch(model, vocabulary)

    def answer(new):
        ids = torch.randint(vocabulary, (rows, LONG if measure == "prefill" else PROMPT))
        sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "pad_token_id": 0}
        with torch.inference_mode():
            return timed(
                lambda: model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, **sampling
                )
            )

    answer(8)
    prompts, whole = answer(1), answer(1 + NEW)
    read = rows * (LONG if measure == "prefill" else PROMPT)
    say(
        promptTokensPerSecond=read / prompts[0],
        promptTokensPerCpuSecond=read / prompts[1],
        tokensPerSecond=rows * NEW / (whole[0] - prompts[0]),
        tokensPerCpuSecond=rows * NEW / (whole[1] - prompts[1]),
    )


def step_of_torch(model, vocabulary):
    import torch
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(vocabulary, (STEP_ROWS, STEP_TIME + 1))

    def step():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    first = timed(step)
    steps = [timed(step) for _ in range(2)]
    say(
        firstStepSeconds=first[0],
        secondsPerStep=min(wall for wall, _ in steps),
        cpuSecondsPerStep=min(cpu for _, cpu in steps),
    )


def side_of_llama(rows):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.gguf
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.n_parallel = rows
    params.n_ctx = rows * 256
    params.warmup = False
    began = time.perf_counter()
    server = xllamacpp.Server(params)
    loading = time.perf_counter() - began
    prompts = [[(37 * row + 101 * at) % 40000 + 100 for at in range(PROMPT)] for row in range(rows)]
    request = {"prompt": prompts, "max_tokens": NEW, "temperature": 1.0, "ignore_eos": True, "cache_prompt": False}
    answers = []
    wall, cpu = timed(lambda: answers.append(server.handle_completions(request)))
    say(loadSeconds=loading, tokensPerSecond=rows * NEW / wall, tokensPerCpuSecond=rows * NEW / cpu, withPrompts=True)


def run(command):
    command = [str(part) for part in command]
    program = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if program.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {program.returncode}: {program.stderr[-2000:]}")
    return json.loads([line for line in program.stdout.splitlines() if line.startswith("{")][-1])


def ours(measure, *more):
    return run(["node", "--import", "tsx", "bench/real-model.ts", measure, args.folder, *map(str, more)])


def compare_logits():
    import numpy
    import torch
    from transformers import AutoModelForCausalLM

    generator = torch.Generator().manual_seed(1)
    exact = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float64).eval()
    ids = torch.randint(exact.config.vocab_size, (1, 96), generator=generator)
    with torch.inference_mode():
        truth = exact(ids).logits[0].numpy()
        single = exact.to(torch.float32)(ids).logits[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ids.json")
        path.write_text(json.dumps(ids[0].tolist()))
        files = ours("logits", path)
        sides = {
            "transformers float32": single,
            "ours, training": numpy.fromfile(files["training"], dtype="float32").reshape(truth.shape),
            "ours, decoding": numpy.fromfile(files["decoding"], dtype="float32").reshape(truth.shape),
        }
    spread = float(truth.std())
    for side, logits in sides.items():
        difference = numpy.abs(logits - truth)
        print(
            json.dumps(
                {
                    "bench": "logits",
                    "side": side,
                    "greatestDifference": float(difference.max()),
                    "relativeToSpread": float(difference.max() / spread),
                    "meanRelativeToSpread": float(difference.mean() / spread),
                    "sameGreatest": float((logits.argmax(-1) == truth.argmax(-1)).mean()),
                }
            ),
            flush=True,
        )


def main():
    cases = [("load", 1), ("prefill", 1), ("decode", 1), ("decode", 16), ("step", 1)]
    if args.only in (None, "logits"):
        compare_logits()
    for measure, rows in cases:
        if args.only not in (None, measure):
            continue
        sides = {
            "ours, main thread": lambda: ours(measure, 0, rows),
            "ours, workers": lambda: ours(measure, args.threads, rows),
            "transformers": lambda: run([sys.executable, __file__, args.folder, "--threads", args.threads, "--torch", measure, rows]),
        }
        # Loading and one row are one thread's work.
        if measure == "load" or (measure != "step" and rows == 1):
            del sides["ours, workers"]
        if measure == "decode" and args.gguf is not None:
            sides["llama.cpp"] = lambda: run(
                [sys.executable, __file__, args.folder, "--threads", args.threads, "--gguf", args.gguf, "--llama", rows]
            )
        for round in range(args.rounds):
            for side, measured in sides.items():
                print(json.dumps({"bench": measure, "side": side, "round": round, **measured(), "rows": rows}), flush=True)


if args.torch is not None:
    side_of_torch(args.torch[0], int(args.torch[1]))
elif args.llama is not None:
    side_of_llama(args.llama)
else:
    main()
