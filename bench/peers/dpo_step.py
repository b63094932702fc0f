"""Times a step of preference training on the pairs of a real search: ours with two workers (bench/dpo-step.ts), TRL's
DPOTrainer, and a plain PyTorch loop, which shows what of TRL's time is the trainer's. Same weights, batches of 32 pairs,
loss (Optima's Eq. 4, α = 1), rate, AdamW and clipping; float32, two threads.

    node bin/optima.js train two-hop-qa --recipe idpo --set iterations=1 --set search.tasks=256 --out /tmp/bench-idpo
    python3.11 -m venv /tmp/venv
    /tmp/venv/bin/pip install torch==2.15.0 transformers==5.24.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
    /tmp/venv/bin/python bench/peers/dpo_step.py /tmp/bench-idpo

The step alone is timed: log-probabilities under the reference are known on all sides (ours come from the search, TRL computes
them before). Of two epochs the second one counts. The sides take turns, and each is a process's work while the others wait;
both the wall's seconds and the processor's are printed, as only the latter say much on a busy machine; there set
OMP_WAIT_POLICY=passive too, or PyTorch's threads spin as they wait for one another, and both kinds of seconds grow. Stops unless the
losses of the first step agree to 1e-4: ours with the loop's, TRL's with ours under TRL's mean over all chosen tokens of a batch,
where Eq. 4 has a mean for each pair.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time

from preference import NODE, VERSIONS, export, load, ours, report, trainer

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

parser = argparse.ArgumentParser()
parser.add_argument("run")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2, help="of PyTorch; and our workers")
parser.add_argument("--loop-rows", type=int, default=8, help="pairs of the loop's forward pass; they are sorted by length")
parser.add_argument("--trl-rows", type=int, default=32, help="pairs of TRL's forward pass; with 32 its loss is checked")
args = parser.parse_args()


def pass_loss(model, pairs, beta, alpha):
    """Summed over the pairs. Padding stands to the right, where causal attention needs no mask."""
    sides = [(pair, side) for side in ("chosenIds", "rejectedIds") for pair in pairs]
    own = torch.tensor([len(pair[side]) for pair, side in sides])
    rows = [torch.tensor(pair["promptIds"] + pair[side]) for pair, side in sides]
    starts = [len(pair["promptIds"]) - 1 for pair, _ in sides]
    hidden = model.model(pad_sequence(rows, batch_first=True), use_cache=False).last_hidden_state
    said = torch.cat([states[at : at + n] for states, at, n in zip(hidden, starts, own.tolist())])
    labels = torch.cat([row[at + 1 :] for row, at in zip(rows, starts)])
    logps = -F.cross_entropy(model.lm_head(said), labels, reduction="none")
    chosen, rejected = torch.stack([part.sum() for part in logps.split(own.tolist())]).chunk(2)
    better = chosen - torch.tensor([pair["refChosen"] for pair in pairs])
    worse = rejected - torch.tensor([pair["refRejected"] for pair in pairs])
    return (-F.logsigmoid(beta * (better - worse)) - alpha * chosen / own[: len(pairs)]).sum()


def loop(given):
    dpo = given["recipe"]["dpo"]
    model = load(given["policy"]).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=dpo["learningRate"],
        betas=(dpo["beta1"], dpo["beta2"]),
        eps=dpo["epsilon"],
        weight_decay=dpo["weightDecay"],
        fused=True,
    )
    seconds, cpu, losses = [], [], []
    for batch in given["batches"] * 2:
        started, cpu_started, loss = time.perf_counter(), time.process_time(), 0
        length = lambda pair: len(pair["promptIds"]) + max(len(pair["chosenIds"]), len(pair["rejectedIds"]))
        batch = sorted(batch, key=length)
        for start in range(0, len(batch), args.loop_rows):
            part = pass_loss(model, batch[start : start + args.loop_rows], dpo["beta"], dpo["alpha"]) / len(batch)
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), dpo["clipNorm"])
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
        losses.append(loss)
    steps = len(given["batches"])
    return {"seconds": seconds[steps:], "cpuSeconds": cpu[steps:], "losses": losses}


def with_trl(given):
    pairs = [pair for batch in given["batches"] for pair in batch]
    made, stopwatch = trainer(given["policy"], pairs, given["recipe"]["dpo"], args.trl_rows, epochs=2)
    made.train()
    steps = len(given["batches"])
    between = lambda times: [after - before for before, after in zip(times[steps:], times[steps + 1 :])]
    first = next(row["loss"] for row in made.state.log_history if "loss" in row)
    return {"seconds": between(stopwatch.wall), "cpuSeconds": between(stopwatch.cpu), "losses": [float(first)]}


def check(name, loss, expected):
    difference = abs(loss - expected)
    if not difference <= 1e-4:
        sys.exit(f"{name}: the first step's losses differ by {difference}")
    return difference


def main():
    torch.set_num_threads(args.threads)
    given = export(args.run)
    median = statistics.median
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(given, file)
        file.flush()
        sides = {
            "ours": lambda: json.loads(ours(*NODE, "bench/dpo-step.ts", file.name, str(args.threads))),
            "loop": lambda: loop(given),
            "trl": lambda: with_trl(given),
        }
        report(bench="dpo-step", pairs=32 * len(given["batches"]), **vars(args), **VERSIONS)
        every = {name: [] for name in sides}
        for turn in range(args.rounds):
            for name, measure in sides.items():
                result = measure()
                every[name].append(result)
                report(
                    round=turn,
                    side=name,
                    median=round(median(result["seconds"]), 4),
                    best=round(min(result["seconds"]), 4),
                    cpuMedian=round(median(result["cpuSeconds"]), 4),
                    cpuBest=round(min(result["cpuSeconds"]), 4),
                )
    mine = every["ours"][0]
    first, alpha = mine["first"], given["recipe"]["dpo"]["alpha"]
    over_tokens = -first["logps/chosen"] / first["tokens/chosen"]
    in_trl = mine["losses"][0] + alpha * (over_tokens - first["nll_loss"])
    differences = {"loop": check("loop", every["loop"][0]["losses"][0], mine["losses"][0])}
    if args.trl_rows == given["recipe"]["dpo"]["batchSize"]:
        differences["trl"] = check("trl", every["trl"][0]["losses"][0], in_trl)
    differences["loopAllSteps"] = max(abs(a - b) for a, b in zip(mine["losses"], every["loop"][0]["losses"]))
    report(lossDifferences=differences)
    for name in ("loop", "trl"):
        against = lambda kind, of: [
            round(of(other[kind]) / of(own[kind]), 2) for own, other in zip(every["ours"], every[name])
        ]
        report(
            ratio=f"{name} / ours",
            medians=against("seconds", median),
            best=against("seconds", min),
            cpuMedians=against("cpuSeconds", median),
            cpuBest=against("cpuSeconds", min),
        )


if __name__ == "__main__":
    main()
