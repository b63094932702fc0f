"""Times llama.cpp on the work of bench/decode.ts, with the same weights.

Written with Python 3.11, llama-cpp-python 0.3.36 (it builds llama.cpp at 0c1e570, here with CMake 3.25.1 and GCC 12.2.0),
gguf 0.19.0, torch 2.9.1, transformers 4.57.3, safetensors 0.8.0 and numpy 2.4.6; by hand, on a quiet machine:

    node --import tsx bench/peers/save-checkpoint.ts /tmp/bench-llama
    python3 -m venv /tmp/venv
    /tmp/venv/bin/pip install torch==2.9.1 transformers==4.57.3 safetensors==0.8.0 numpy==2.4.6 gguf==0.19.0
    CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=2 \
        /tmp/venv/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
    /tmp/venv/bin/python bench/peers/llama_cpp_decode.py /tmp/bench-llama

On a busy machine the figures mean nothing: ggml's threads spin as they wait, and starve one another. Prints one JSON object a
line, as the benchmarks do; for each engine the first says how far its logits are from Transformers'.
"""

import json
import math
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
import torch
import transformers
from transformers import LlamaForCausalLM

from gguf_files import write_model

NEW = 128
TEMPERATURE = 0.7
THREADS = 2


@dataclass(frozen=True)
class Engine:
    """How llama.cpp remembers keys and values. With flash attention it would cast float32 to float16 at every step."""

    name: str
    memory: int
    flash_attention: int
    tolerance: float  # of logits; with rotary pairs laid out wrongly they differ by no more than 0.009


ENGINES = (
    Engine("llama.cpp float32", llama_cpp.GGML_TYPE_F32, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED, 1e-5),
    Engine("llama.cpp defaults", llama_cpp.GGML_TYPE_F16, llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO, 2e-3),
)


@llama_cpp.llama_log_callback
def log(level, text, _):
    """Errors alone; the package's own log takes their number for that of debugging."""
    if level == 4:
        print(text.decode(), end="", file=sys.stderr)


def report(**figures):
    print(json.dumps({**figures, "llamaCppPython": llama_cpp.__version__}), flush=True)


def load(path):
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if model is None:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    return model


class Batch:
    """The next `time` tokens of each of `rows` sequences; the logits are wanted of each one's last."""

    def __init__(self, rows, time):
        self.time = time
        self.raw = llama_cpp.llama_batch_init(rows * time, 0, 1)
        self.raw.n_tokens = rows * time
        for i in range(rows * time):
            self.raw.n_seq_id[i] = 1
            self.raw.seq_id[i][0] = i // time
            self.raw.logits[i] = (i + 1) % time == 0
        self.ids = np.ctypeslib.as_array(self.raw.token, (rows, time))
        self.positions = np.ctypeslib.as_array(self.raw.pos, (rows, time))


class Decoder:
    """Decodes `rows` sequences side by side; each answer is a view of the logits, valid until the next."""

    def __init__(self, model, engine, rows, prompt):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = rows * 256 * math.ceil((prompt + 1 + NEW) / 256)  # as llama.cpp rounds it
        params.n_batch = rows * prompt
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = THREADS
        params.type_k = params.type_v = engine.memory
        params.flash_attn_type = engine.flash_attention
        self.context = llama_cpp.llama_init_from_model(model, params)
        if self.context is None:
            raise RuntimeError(f"llama.cpp cannot open a context of {rows} rows")
        self.shape = rows, llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.prompts = Batch(rows, prompt)
        self.tokens = Batch(rows, 1)

    def read(self, ids):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
        self.length = 0
        return self.decode(self.prompts, ids)

    def step(self, ids):
        return self.decode(self.tokens, ids[:, None])

    def decode(self, batch, ids):
        batch.ids[:] = ids
        batch.positions[:] = np.arange(self.length, self.length + batch.time)
        self.length += batch.time
        if llama_cpp.llama_decode(self.context, batch.raw) != 0:
            raise RuntimeError(f"llama_decode failed at length {self.length}")
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), self.shape)

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_batch_free(self.prompts.raw)
        llama_cpp.llama_batch_free(self.tokens.raw)


def random_ids(rng, decoder, time):
    rows, vocabulary = decoder.shape
    return rng.integers(vocabulary, size=(rows, time))


def compare(folder, model, engine, rng, rows=4, prompt=200):
    """Compares the logits after prompts, and after one more token each, with Transformers'."""
    with closing(Decoder(model, engine, rows, prompt)) as decoder:
        ids = random_ids(rng, decoder, prompt + 1)
        found = np.stack([decoder.read(ids[:, :-1]).copy(), decoder.step(ids[:, -1]).copy()], axis=1)
    with torch.no_grad():
        peer = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected = peer(input_ids=torch.from_numpy(ids)).logits[:, -2:].numpy()
    difference = float(np.abs(found - expected).max())
    report(
        bench="logits",
        engine=engine.name,
        greatestDifference=difference,
        greatestLogit=float(np.abs(expected).max()),
        system=llama_cpp.llama_print_system_info().decode(),
        transformers=transformers.__version__,
    )
    if not difference <= engine.tolerance:
        sys.exit(f"{engine.name}: the logits differ by {difference} from those of Transformers")


def draw(logits, rng):
    weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / TEMPERATURE)
    sums = weights.cumsum(axis=1)
    return (sums >= rng.random((len(sums), 1), dtype=np.float32) * sums[:, -1:]).argmax(axis=1)


def generate(decoder, ids, new_tokens, rng):
    """The seconds that it takes, and how many of them the drawing took."""
    drawing = 0

    def next_ids(logits):
        nonlocal drawing
        started_at = time.perf_counter()
        drawn = draw(logits, rng)
        drawing += time.perf_counter() - started_at
        return drawn

    started_at = time.perf_counter()
    drawn = next_ids(decoder.read(ids))
    for _ in range(new_tokens - 1):
        drawn = next_ids(decoder.step(drawn))
    return time.perf_counter() - started_at, drawing


def time_generation(model, engine, rng, rows, prompt):
    with closing(Decoder(model, engine, rows, prompt)) as decoder:
        ids = random_ids(rng, decoder, prompt)
        generate(decoder, ids, NEW, rng)
        prompts, _ = generate(decoder, ids, 1, rng)
        whole, drawing = generate(decoder, ids, 1 + NEW, rng)
    report(
        bench="decode",
        engine=engine.name,
        rows=rows,
        promptTokens=prompt,
        newTokens=NEW,
        tokensPerSecond=round(rows * NEW / (whole - prompts)),
        promptTokensPerSecond=round(rows * prompt / prompts),
        seconds=round(whole - prompts, 4),
        secondsDrawing=round(drawing, 4),
    )


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(THREADS)
    llama_cpp.llama_log_set(log, None)
    llama_cpp.llama_backend_init()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model.gguf")
        write_model(folder, path)
        model = load(path)
        for engine in ENGINES:
            compare(folder, model, engine, rng)
            for prompt in (16, 200):
                for rows in (1, 16, 64):
                    time_generation(model, engine, rng, rows, prompt)


if __name__ == "__main__":
    main()
