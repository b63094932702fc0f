"""Times an iteration of iDPO with tree search against what one would put together in Python instead, from the same policy,
on the same tasks, with as many dialogues of each:

- ours: the phases pilot, search, pair and train of `optima train` on two workers (bench/idpo-iteration.ts).
- the peer: all dialogues held side by side and apart from one another with transformers' `generate` (batches sorted by length,
  padded to the left, with a cache of keys and values), rewards by Optima's Eq. 1 with the NLL under the base. Of two dialogues
  of a task the first turn in which they differ is a pair, above the recipe's thresholds: of the best and the worst, of the
  second best and the second worst, and so on. TRL's DPOTrainer trains an epoch on them; the references that it computes are a
  part of that. It trains twice from the same policy, and the peer's time is told with either: on the best and the worst of
  each task alone, and on as many pairs as ours trains on, of as many dialogues.

    node bin/optima.js train pages-qa --recipe idpo --set iterations=1 --set search.tasks=96 --set evaluation.tasks=1 --out /tmp/bench-idpo
    python3.11 -m venv /tmp/venv
    /tmp/venv/bin/pip install torch==2.15.0 transformers==5.24.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0
    /tmp/venv/bin/python bench/peers/idpo_iteration.py /tmp/bench-idpo

With --processes 2, the default, each of two processes holds and ranks half of the tasks on one thread; with 1, one does on
two. Loading the models and starting processes, workers and engines is timed on no side. The sides take turns. On a busy
machine compare the processor's seconds, and set OMP_WAIT_POLICY=passive. Of the open cases the peer leaves out dialogues
with an empty or a cut message as the best.
"""

import argparse
import json
import math
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from preference import NODE, VERSIONS, export, load, ours, report, trainer

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, GenerationConfig, set_seed

THREADS = 2


@dataclass
class Turn:
    speaker: str
    prompt: list  # tokens
    ids: list
    text: str
    cut: bool


@dataclass
class Dialogue:
    task: int
    views: dict  # of each role, tokens
    turns: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)  # of each role, its latest
    answer: str | None = None  # the latest

    @property
    def tokens(self):
        return sum(len(turn.ids) for turn in self.turns)


def stated(text):
    found = re.findall(r"<A>((?:(?!<A>).)*?)</A>", text, re.DOTALL)
    return found[-1].strip() or None if found else None


def normal_words(text):
    return re.sub(r"\b(a|an|the)\b", " ", re.sub(r"[^\w\s]|_", "", text.lower())).split()


def f1(answer, right):
    said, wanted = normal_words(answer), normal_words(right)
    shared = sum(min(said.count(word), wanted.count(word)) for word in set(said))
    return 2 * shared / max(len(said) + len(wanted), 1)


def score_of(given, dialogue):
    answers = given["tasks"][dialogue.task]["answers"]
    return 0 if dialogue.answer is None else max(f1(dialogue.answer, right) for right in answers)


class Team:
    """Policy and base in one process."""

    def __init__(self, given, threads, seed):
        torch.set_num_threads(threads)
        set_seed(seed)
        self.given, self.recipe = given, given["recipe"]
        self.policy, self.base = load(given["policy"]).eval(), load(given["base"]).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(given["policy"])
        self.end, self.pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        self.context = self.policy.config.max_position_embeddings
        self.floor = self.tokenizer.encode("<|assistant|>", add_special_tokens=False)

    def heard(self, role, text):
        chat = self.tokenizer.apply_chat_template([{"role": role, "content": text}], tokenize=False)
        return self.tokenizer.encode(chat, add_special_tokens=False)

    def say(self, prompts, batch):
        """The tokens sampled after each prompt."""
        search = self.recipe["search"]
        shortest_first = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        said = [None] * len(prompts)
        for start in range(0, len(prompts), batch):
            group = shortest_first[start : start + batch]
            width = max(len(prompts[index]) for index in group)
            padding = [width - len(prompts[index]) for index in group]
            sampling = GenerationConfig(
                do_sample=True,
                temperature=search["temperature"],
                top_k=0,
                max_new_tokens=min(self.recipe["maxMessageTokens"], self.context - width),
                eos_token_id=self.end,
                pad_token_id=self.pad,
            )
            with torch.inference_mode():
                rows = self.policy.generate(
                    torch.tensor([[self.pad] * n + prompts[index] for n, index in zip(padding, group)]),
                    attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in padding]),
                    generation_config=sampling,
                )[:, width:].tolist()
            for index, row in zip(group, rows):
                said[index] = row[: row.index(self.end) + 1] if self.end in row else row
        return said

    def converse(self, tasks, batch):
        """All dialogues of the tasks, by their numbers, a turn of all at a time."""
        count = self.recipe["search"]["expansions"] * self.recipe["search"]["rolloutsPerExpansion"]
        dialogues = []
        for task in tasks:
            views = {role: self.heard("system", text) for role, text in self.given["tasks"][task]["views"].items()}
            dialogues += [Dialogue(task, {role: list(ids) for role, ids in views.items()}) for _ in range(count)]
        running = dialogues
        for turn in range(self.given["maxTurns"]):
            speaker = self.given["order"][turn % len(self.given["order"])]
            prompts = [dialogue.views[speaker] + self.floor for dialogue in running]
            for dialogue, prompt, ids in zip(running, prompts, self.say(prompts, batch)):
                self.append(dialogue, speaker, prompt, ids)
            running = [dialogue for dialogue in running if not self.agreed(dialogue)]
            if not running:
                break
        return dialogues

    def append(self, dialogue, speaker, prompt, ids):
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        cut = ids[-1] != self.end
        dialogue.turns.append(Turn(speaker, prompt, ids, text, cut))
        for role in dialogue.views:
            own = self.floor + ids + [self.end] * cut
            dialogue.views[role] += own if role == speaker else self.heard("user", text)
        if (answer := stated(text)) is not None:
            dialogue.answer = answer
            dialogue.answers[speaker] = normal_words(answer)

    def agreed(self, dialogue):
        answers = list(dialogue.answers.values())
        return len(answers) == len(dialogue.views) and all(answer == answers[0] for answer in answers)

    def rank(self, dialogues, batch):
        """The reward of each dialogue, all of whose task's are among them."""
        most, worst = {}, [-math.inf] * len(dialogues)
        for dialogue in dialogues:
            most[dialogue.task] = max(most.get(dialogue.task, 0), dialogue.tokens)
        views = [(index, role) for index, dialogue in enumerate(dialogues) for role in dialogue.views]
        views.sort(key=lambda view: len(dialogues[view[0]].views[view[1]]))
        for start in range(0, len(views), batch):
            group = views[start : start + batch]
            ids = pad_sequence([torch.tensor(dialogues[index].views[role]) for index, role in group], batch_first=True)
            with torch.inference_mode():  # padding stands to the right: no mask
                logits = self.base(ids[:, :-1], use_cache=False).logits
                nll = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").tolist()
            for (index, role), row in zip(group, nll):
                for turn in dialogues[index].turns:
                    if turn.speaker == role:
                        at, n = len(turn.prompt) - 1, len(turn.ids)
                        worst[index] = max(worst[index], sum(row[at : at + n]) / n)
        reward = {**self.given["reward"], **{k: v for k, v in self.recipe["reward"].items() if v is not None}}
        rewards = []
        for dialogue, loss in zip(dialogues, worst):
            score, share = score_of(self.given, dialogue), dialogue.tokens / most[dialogue.task]
            readability = reward["lambdaLoss"] / max(loss, reward["lossFloor"])
            rewards.append(score - reward["lambdaToken"] * share + readability)
        return rewards


def start_team(*setting):
    global team
    team = Team(*setting)


def in_team(work, *given):
    """What the process's team makes of it, and the processor's seconds."""
    started = time.process_time()
    result = getattr(team, work)(*given)
    return result, time.process_time() - started


def pairs_of(dialogues, rewards, thresholds):
    """The first turns in which the best and the worst dialogue of each task differ, then the second best and worst, and so on."""
    by_task = {}
    for dialogue, reward in zip(dialogues, rewards):
        by_task.setdefault(dialogue.task, []).append((reward, dialogue))
    ranks = [[] for _ in range(max(len(ranked) for ranked in by_task.values()) // 2)]
    for ranked in by_task.values():
        ranked.sort(key=lambda each: each[0])
        fine = [each for each in ranked if not any(turn.cut or not turn.text.strip() for turn in each[1].turns)]
        for pairs, (best, chosen), (worst, rejected) in zip(ranks, reversed(fine), ranked):
            if best <= thresholds["thetaFilter"] or best - worst <= thresholds["thetaDiff"]:
                break
            differing = (both for both in zip(chosen.turns, rejected.turns) if both[0].text != both[1].text)
            if found := next(differing, None):
                better, worse = found
                pairs.append({"promptIds": better.prompt, "chosenIds": better.ids, "rejectedIds": worse.ids})
    return ranks


def peer(given, args, seed, as_many):
    shares = [list(range(part, args.tasks, args.processes)) for part in range(args.processes)]
    phases = {}

    def timed(phase, work):
        """`work` gives its result and what other processes spent on it."""
        started, cpu_started = time.perf_counter(), time.process_time()
        result, elsewhere = work()
        cpu = time.process_time() - cpu_started + elsewhere
        phases[phase] = {"seconds": time.perf_counter() - started, "cpuSeconds": cpu}
        return result

    setting = given, THREADS // args.processes, seed
    with ProcessPoolExecutor(args.processes, get_context("spawn"), start_team, setting) as pool:

        def spread(work, parts, batch):
            done = list(pool.map(in_team, [work] * len(parts), parts, [batch] * len(parts)))
            return [result for result, _ in done], sum(cpu for _, cpu in done)

        spread("converse", [[]] * args.processes, 1)  # loads the models
        held = timed("generate", lambda: spread("converse", shares, args.batch))
        rewards = sum(timed("rank", lambda: spread("rank", held, args.score_batch)), [])
    dialogues = sum(held, [])
    ranks = timed("pair", lambda: (pairs_of(dialogues, rewards, given["recipe"]["pairs"]), 0))
    torch.set_num_threads(THREADS)
    chosen = {"train": ranks[0], "trainOnAsMany": sum(ranks, [])[:as_many]}
    for phase, pairs in chosen.items():
        train = lambda: trainer(given["policy"], pairs, given["recipe"]["dpo"], args.trl_rows)[0].train()
        timed(phase, lambda: (train(), 0))
    figures = {
        "dialogues": len(dialogues),
        "taskScore": statistics.fmean(score_of(given, dialogue) for dialogue in dialogues),
        "tokens": statistics.fmean(dialogue.tokens for dialogue in dialogues),
        "turns": statistics.fmean(len(dialogue.turns) for dialogue in dialogues),
        "meanReward": statistics.fmean(rewards),
        **{f"pairsOf{phase[0].upper()}{phase[1:]}": len(pairs) for phase, pairs in chosen.items()},
    }
    return phases, figures


def iteration_of_ours(args):
    told = json.loads(ours(*NODE, "bench/idpo-iteration.ts", str(Path(args.run).resolve()), str(args.tasks), str(THREADS)))
    return told["phases"], told["figures"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--tasks", type=int, help="the first of those that the run searched; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--batch", type=int, default=64, help="prompts of a call of `generate`")
    parser.add_argument("--score-batch", type=int, default=16)
    parser.add_argument("--trl-rows", type=int, default=32)
    args = parser.parse_args()
    given = export(args.run)
    args.tasks = args.tasks or len(given["tasks"])
    if args.tasks > len(given["tasks"]):
        parser.error(f"the run searched {len(given['tasks'])} tasks: train it with --set search.tasks={args.tasks}")
    report(bench="idpo-iteration", **vars(args), **VERSIONS)
    # The ways in which the peer's time is told, and the training that each leaves out.
    without = {"peer": "trainOnAsMany", "peerOnAsManyPairs": "train"}
    totals = {name: [] for name in ("ours", *without)}
    rounded = lambda figures: {key: round(value, 3) for key, value in figures.items()}

    def told(name, turn, phases, figures):
        kinds = ("seconds", "cpuSeconds")
        sums = {
            side: {kind: sum(took[kind] for phase, took in phases.items() if phase != left) for kind in kinds}
            for side, left in ({name: None} if name == "ours" else without).items()
        }
        for side, total in sums.items():
            totals[side].append(total)
        each = {phase: rounded(took) for phase, took in phases.items()}
        report(round=turn, side=name, totals={k: rounded(v) for k, v in sums.items()}, phases=each, figures=rounded(figures))

    for turn in range(args.rounds):
        phases, figures = iteration_of_ours(args)
        told("ours", turn, phases, figures)
        told("peer", turn, *peer(given, args, turn, figures["pairs"]))
    for side in without:
        for kind in ("seconds", "cpuSeconds"):
            both = {name: [total[kind] for total in totals[name]] for name in ("ours", side)}
            ratios = [theirs / mine for mine, theirs in zip(both["ours"], both[side])]
            report(
                of=kind,
                medians={name: round(statistics.median(each), 2) for name, each in both.items()},
                ratios=[round(ratio, 2) for ratio in ratios],
                ratio=round(statistics.median(ratios), 2),
            )


if __name__ == "__main__":
    main()
