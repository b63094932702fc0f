"""Whether llama.cpp reads what is saved here: a checkpoint, and an adapter over it, apart and merged, as float32 GGUF.

    node --import tsx bin/optima.js train two-hop-qa --set lora.rank=8 … --out <run>
    node --import tsx bin/optima.js merge <adapter folder> --out <merged folder>
    python3.11 -m venv /tmp/venv
    /tmp/venv/bin/pip install xllamacpp==2026.10.11549 gguf==0.19.0 safetensors==0.8.0 numpy==2.4.6
    /tmp/venv/bin/python bench/peers/llama_cpp_logits.py <checkpoint folder> [--adapter <folder>] [--merged <folder>]

Its server says no logits, but the log-probability of every token after a prompt of token ids; these are held against ours, on the way
that training takes and on the one that decoding takes: one JSON object a side, and an error where one is further than 1e-4 of their spread.
Last come the tokens of plain texts, and of awkward ones, by both tokenizers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import xllamacpp

from gguf_files import write_adapter, write_model

REPOSITORY = Path(__file__).resolve().parents[2]
LENGTH, CUTS = 96, (1, 2, 3, 7, 16, 31, 64, 96)
TOLERANCE = 1e-4  # of the log-probabilities' spread; a rotary pair laid out wrongly, or an adapter left out, is far beyond

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--adapter", type=Path, help="a PEFT folder over it")
parser.add_argument("--merged", type=Path, help="what `optima merge` made of that")
args = parser.parse_args()


class LlamaCpp:
    """A server on a free port of loopback; keys and values in float32, as everything else here."""

    def __init__(self, model, adapter=None):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.n_ctx, params.n_parallel, params.port, params.warmup = 512, 1, 0, False
        self.server = xllamacpp.Server(params)

    def ask(self, path, body):
        request = urllib.request.Request(
            f"{self.server.listening_address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def log_probabilities(self, ids, vocabulary):
        body = {"prompt": ids, "n_predict": 1, "n_probs": vocabulary, "temperature": 1.0, "cache_prompt": False}
        found = self.ask("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        if len({entry["id"] for entry in found}) != vocabulary:
            sys.exit(f"llama.cpp says the log-probabilities of {len(found)} tokens, not of {vocabulary}.")
        row = np.empty(vocabulary)
        for entry in found:
            row[entry["id"]] = entry["logprob"]
        return row

    def tokens(self, text):
        return self.ask("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]


def ours(measure, folder, given, scratch):
    path = scratch / "given.json"
    path.write_text(json.dumps(given))
    command = ["node", "--import", "tsx", "bench/real-model.ts", measure, str(folder.resolve()), str(path)]
    program = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if program.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {program.returncode}: {program.stderr[-2000:]}")
    return json.loads(program.stdout.splitlines()[-1])


def log_softmax(logits):
    logits = logits.astype("float64")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def compare(side, server, folder, ids, vocabulary, scratch):
    theirs = np.stack([server.log_probabilities(ids[:cut], vocabulary) for cut in CUTS])
    files = ours("logits", folder, ids, scratch)
    at = [cut - 1 for cut in CUTS]
    differences = {}
    for way in ("training", "decoding"):
        logits = np.fromfile(files[way], dtype="float32").reshape(LENGTH, vocabulary)
        differences[way] = float(np.abs(log_softmax(logits[at]) - theirs).max())
    spread = float(theirs.std())
    print(json.dumps({"bench": "llama.cpp", "side": side, "greatestDifference": differences, "spread": spread}), flush=True)
    if not max(differences.values()) <= TOLERANCE * spread:
        sys.exit(f"{side}: llama.cpp's log-probabilities differ from ours by {differences}.")
    return theirs


def paragraphs():
    return [line for line in (REPOSITORY / "docs/method.md").read_text().splitlines() if line.strip() != ""]


def compare_texts(server, folder, scratch):
    plain = paragraphs()
    awkward = [
        *("", " ", "  two  spaces", "\t\ttabs\n\nand lines\r\n", "12345 6 7,890.12", "don't 'tis y'all've", "'the 'the", "(((a)))...!?", "x=1;y+=2"),
        *("naïve café", "日本語 テスト", "مرحبا ٣٤", "👩‍👩‍👧 🇩🇪", "a\u00a0b\u3000c", "<|end|> spelt out", "e\u0301 combining", "Ⅷ ½ ²"),
    ]
    for kind, texts in (("plain", plain), ("awkward", awkward)):
        expected = ours("tokens", folder, texts, scratch)["tokens"]
        other = [text for text, ids in zip(texts, expected, strict=True) if server.tokens(text) != ids]
        print(json.dumps({"bench": "llama.cpp tokens", "texts": kind, "of": len(texts), "different": other}), flush=True)


def main():
    vocabulary = json.loads((args.folder / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        [ids] = ours("tokens", args.folder, ["\n".join(paragraphs())], scratch)["tokens"]
        ids = ids[:LENGTH]
        base = scratch / "base.gguf"
        write_model(args.folder, base)
        server = LlamaCpp(base)
        alone = compare("checkpoint", server, args.folder, ids, vocabulary, scratch)
        compare_texts(server, args.folder, scratch)
        del server
        if args.adapter is not None:
            write_adapter(args.adapter, scratch / "adapter.gguf", args.folder)
            adapted = compare("adapter", LlamaCpp(base, scratch / "adapter.gguf"), args.adapter, ids, vocabulary, scratch)
            print(json.dumps({"bench": "llama.cpp", "adapterChanges": float(np.abs(adapted - alone).max())}), flush=True)
        if args.merged is not None:
            write_model(args.merged, scratch / "merged.gguf")
            compare("merged", LlamaCpp(scratch / "merged.gguf"), args.merged, ids, vocabulary, scratch)


main()
