"""What the peers of preference training share: what they know of a run of ours, and training on pairs with TRL.

Of TRL's own options for more speed two are taken: no checkpointing of activations, which is its default, and references
computed before the training. It has none more: `padding_free` is switched off in TRL 1.16.0 ("temporarily unavailable").
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

REPOSITORY = Path(__file__).resolve().parents[2]
NODE = ["node", "--import", "tsx"]
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
transformers.utils.logging.disable_progress_bar()


def report(**figures):
    print(json.dumps(figures), flush=True)


def ours(*command):
    """What a program of this repository prints."""
    program = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if program.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {program.returncode}: {program.stderr}")
    return program.stdout


def export(run):
    return json.loads(ours(*NODE, "bench/peers/export-run.ts", str(Path(run).resolve())))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


class OnTokens(trl.DPOTrainer):
    """TRL's trainer on pairs whose tokens are known: it would encode texts anew, which may give others."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


class Stopwatch(TrainerCallback):
    """When the training began and each step ended: the processor's seconds and the wall's."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def note(self, *_, **__):
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    on_train_begin = on_step_end = note


def trainer(folder, pairs, dpo, rows, epochs=1):
    """TRL's trainer of Optima's Eq. 4 in its spelling, at a constant rate, `rows` pairs at a time; and its stopwatch."""
    config = trl.DPOConfig(
        output_dir="/tmp/peers-trl",
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, dpo["alpha"]],
        beta=dpo["beta"],
        precompute_ref_log_probs=True,
        max_length=dpo["maxSequenceTokens"],
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=dpo["batchSize"] // rows,
        train_sampling_strategy="sequential",
        num_train_epochs=epochs,
        learning_rate=dpo["learningRate"],
        lr_scheduler_type="constant",
        adam_beta1=dpo["beta1"],
        adam_beta2=dpo["beta2"],
        adam_epsilon=dpo["epsilon"],
        weight_decay=dpo["weightDecay"],
        max_grad_norm=dpo["clipNorm"],
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_first_step=True,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    names = {"prompt_ids": "promptIds", "chosen_ids": "chosenIds", "rejected_ids": "rejectedIds"}
    data = Dataset.from_list([{name: pair[known] for name, known in names.items()} for pair in pairs])
    stopwatch = Stopwatch()
    made = OnTokens(
        model=load(folder),
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[stopwatch],
    )
    made.remove_callback(PrinterCallback)
    return made, stopwatch
