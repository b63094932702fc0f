// What the viewer cannot do itself, as it runs no model: texts of tokens, the base's opinion of a turn, forks.
import fs from 'node:fs';
import { cleaningUp } from '../domain/errors.ts';
import { silent } from '../domain/progress.ts';
import type { Trajectory, Turn } from '../domain/transcript.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Fork, RankedDialogue } from '../run/fork.ts';
import { type Manifest, readManifest } from '../store/manifest.ts';
import type { Branch } from '../viewer/api.ts';
import type { ViewerTools } from '../viewer/server/routes.ts';
import type { Pieces } from '../viewer/server/trees.ts';
import { openForkSetting } from './fork.ts';
import { openEngine } from './model.ts';
import type { Backend } from './options.ts';
import type { Output } from './output.ts';
import { reopenBase } from './reopen.ts';

export interface OpenTools {
  readonly tools: ViewerTools;
  close(): Promise<void>;
}

/** The tools; models are opened when one is first asked for, and one thing is computed after the other. */
export function viewTools(
  options: { readonly backend?: Backend },
  output: Output,
  signal: AbortSignal,
): OpenTools {
  // What the engine remarks is for the terminal, once.
  const quiet: Output = { ...output, say: () => {}, emit: () => {}, remark: () => {}, progress: silent };
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const result = last.then(work, work);
    last = result.catch(() => {});
    return result;
  };
  const tokenizers = new Map<string, Promise<Pieces>>();
  let base: { readonly folder: string; readonly policy: LlamaPolicy } | null = null;
  const baseOf = async (manifest: Manifest): Promise<LlamaPolicy> => {
    const { folder, hash } = manifest.base;
    if (base?.folder === folder && base.policy.hash === hash) return base.policy;
    base?.policy.dispose();
    base = null;
    await openEngine(options, quiet);
    const policy = await reopenBase(manifest);
    base = { folder, policy };
    return policy;
  };
  const tools: ViewerTools = {
    pieces(folder) {
      const known = tokenizers.get(folder) ?? piecesOf(folder);
      tokenizers.set(folder, known);
      return known;
    },
    score: (folder, view) =>
      inTurn(async () => {
        const policy = await baseOf(readManifest(folder));
        const [result] = await policy.score([{ id: 'turn', messages: view, last: 1 }], { signal });
        return { model: policy.hash, logprobs: result![0]! };
      }),
    fork: (folder, request) =>
      inTurn(async () => {
        const { setting, close } = await openForkSetting(folder, options, quiet, signal);
        return cleaningUp(async () => {
          const { forkTurn } = await import('../run/fork.ts');
          const [fork] = await forkTurn(setting, request);
          return answerOf(fork!);
        }, close);
      }),
    keep: (folder, fork) =>
      inTurn(async () => {
        const { setting, close } = await openForkSetting(folder, options, quiet, signal);
        return cleaningUp(async () => {
          const { keepFork } = await import('../run/fork.ts');
          const { chosen, rejected, value, gap } = await keepFork(setting, fork);
          return { fork, chosen: chosen.id, rejected: rejected.id, value, gap };
        }, close);
      }),
  };
  return {
    tools,
    async close() {
      await last;
      base?.policy.dispose();
    },
  };
}

/** The texts of a run's tokens, by the tokenizer of its base or of a policy that it trained; null where neither is there. */
async function piecesOf(folder: string): Promise<Pieces> {
  const { loadTokenizer } = await import('../models/tokenizer/index.ts');
  const { modelFolderOf } = await import('../models/llama/adapter-header.ts');
  const checkpoints = `${folder}/checkpoints`;
  const own = fs.existsSync(checkpoints)
    ? fs.readdirSync(checkpoints).map((name) => `${checkpoints}/${name}`)
    : [];
  for (const place of [readManifest(folder).base.folder, ...own]) {
    try {
      const tokenizer = await loadTokenizer(await modelFolderOf({ folder: place }));
      return (ids) => ids.map((id) => tokenizer.decode([id]));
    } catch {
      // Elsewhere, perhaps.
    }
  }
  return null;
}

function answerOf({ fork, beside, turn, trains, ...own }: Fork) {
  return {
    fork,
    branch: branchOf(own, turn),
    beside: beside && branchOf(beside, beside.turn),
    besideValue: beside?.value ?? null,
    keeps: trains && beside !== null,
  };
}

/** A dialogue from one of its turns on. */
function branchOf({ dialogue, ranked }: RankedDialogue, first: Turn | null): Branch {
  const { id, turns, outcome, failure, verdict }: Trajectory = dialogue;
  const from = first === null ? turns.length : turns.findIndex((turn) => turn.id === first.id);
  return {
    ...{ dialogue: id, outcome, failure: failure ?? ranked.failure, tokens: ranked.tokens },
    ...{ reward: ranked.reward, terms: ranked.terms },
    answer: verdict?.answer ?? null,
    taskScore: verdict?.taskScore ?? null,
    turns: turns
      .slice(from)
      .map(({ id: turn, speaker, text, provenance }) => ({ id: turn, speaker, text, provenance })),
  };
}
