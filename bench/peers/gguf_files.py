"""Writes a checkpoint of the Llama or Mistral kind, or a PEFT adapter over one, as a float32 GGUF file, which llama.cpp reads.

    python3.11 -m venv /tmp/venv && /tmp/venv/bin/pip install gguf==0.19.0 safetensors==0.8.0 numpy==2.4.6
    /tmp/venv/bin/python bench/peers/gguf_files.py <checkpoint folder> model.gguf [--adapter <adapter folder> adapter.gguf]

A GGUF names its pre-tokenizer and llama.cpp has its rules, so a byte-level BPE is written under the name whose rules are its own or
nearest: bench/peers/llama_cpp_logits.py counts the texts that are cut differently.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf
from safetensors.numpy import load_file


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_weights(folder, name):
    index = folder / f"{name}.safetensors.index.json"
    files = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else [f"{name}.safetensors"]
    return {key: array.astype("float32") for file in files for key, array in load_file(folder / file).items()}


def interleave(rows, heads):
    """Lays the rows of each head out for rotary pairs that are neighbours; Hugging Face's lie half a head apart."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


class Llama:
    """What of a folder's config.json both files need."""

    def __init__(self, folder):
        self.config = read_json(folder / "config.json")
        kind, scaling = self.config["model_type"], self.config.get("rope_scaling")
        if kind not in ("llama", "mistral") or scaling is not None:
            sys.exit(f"{folder}: {kind} with rope_scaling {scaling} is not written here; llama.cpp's own converter does.")
        self.names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, self.config["num_hidden_layers"])
        self.heads = {"q_proj": self.config["num_attention_heads"], "k_proj": self.config["num_key_value_heads"]}

    def name(self, name):
        found = self.names.get_name(name, try_suffixes=(".weight",))
        return found if found is not None else sys.exit(f"No name in a GGUF for {name}.")

    def rows(self, name, rows):
        """Rows that a matrix of this name has or gives, in llama.cpp's order."""
        heads = self.heads.get(name.split(".")[-2])
        return rows if heads is None else interleave(rows, heads)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(folder, path):
    llama = Llama(folder)
    config = llama.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    add_tokenizer(writer, folder, config)
    for name, weight in read_weights(folder, "model").items():
        writer.add_tensor(llama.name(name), llama.rows(name, weight))
    finish(writer)


def write_adapter(folder, path, base):
    llama = Llama(base)
    config = read_json(folder / "adapter_config.json")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", config["lora_alpha"])
    for key, factor in read_weights(folder, "adapter_model").items():
        # base_model.model.<matrix>.lora_A.weight; what B gives are the rows of the matrix.
        name, side = key.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".", 1)
        matrix = f"{name}.weight"
        rows = llama.rows(matrix, factor) if side == "lora_B" else factor
        writer.add_tensor(f"{llama.name(matrix)}.{side.lower()}", rows)
    finish(writer)


def add_tokenizer(writer, folder, config):
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    model = tokenizer["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or "ByteLevel" not in json.dumps(tokenizer["pre_tokenizer"]):
        sys.exit(f"{folder}: only a byte-level BPE is written here.")
    tokens = [f"[unused {id}]" for id in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * len(tokens)
    for token, id in model["vocab"].items():
        tokens[id], kinds[id] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    # Each digit a piece, and GPT-2's pieces elsewhere.
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    ends = config["eos_token_id"]
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    for add, name in ((writer.add_bos_token_id, "bos_token_id"), (writer.add_pad_token_id, "pad_token_id")):
        if config.get(name) is not None:
            add(config[name])
    writer.add_add_bos_token(False)
    if isinstance(settings.get("chat_template"), str):
        writer.add_chat_template(settings["chat_template"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--adapter", nargs=2, type=Path, metavar=("FOLDER", "GGUF"))
    args = parser.parse_args()
    write_model(args.folder, args.gguf)
    if args.adapter is not None:
        write_adapter(*args.adapter, base=args.folder)
