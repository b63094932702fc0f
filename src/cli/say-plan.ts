// What a run is going to do, before it does it, and how long the rest may take, once the base has been measured.
import type { Progress } from '../domain/progress.ts';
import type { PlannedPhase } from '../machines/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { OpenedFrozen } from '../run/frozen.ts';
import { dialoguesOf, type IterationPlan } from '../run/plan.ts';
import type { Scenario } from '../scenario/types.ts';
import { formatTable, type Output, spanOf } from './output.ts';

/** Most that an iteration can train on, in words. */
function trainedOn({ phases }: IterationPlan, recipe: Recipe): string {
  const who = recipe.policies === 'per-role' ? ', a policy for each role' : '';
  const select = phases.find((phase) => phase.kind === 'select');
  const generate = phases.find((phase) => phase.kind === 'generate');
  if (select === undefined || generate === undefined) return `DPO on the pairs that are found${who}`;
  const dialogues = Math.max(1, Math.round(select.keepFraction * generate.tasks.count));
  return `SFT on ${dialogues} dialogues at most, ${recipe.sft.epochs} epochs${who}`;
}

/** Prints the plan: what each iteration holds and trains on. */
export function sayPlan(
  plan: readonly PlannedPhase[],
  iterations: readonly IterationPlan[],
  recipe: Recipe,
  output: Output,
): void {
  const counted = plan.map((phase) => ({ phase, dialogues: dialoguesOf(phase, recipe) }));
  const total = counted.reduce((sum, { dialogues }) => sum + dialogues, 0);
  const evaluations = (name: string) => {
    const found = counted.find(({ phase }) => phase.name === name);
    return found === undefined ? [] : [[`${name}: measured on test tasks`, String(found.dialogues)]];
  };
  const rows = iterations.map((iteration) => {
    const own = iteration.phases.reduce((sum, phase) => sum + dialoguesOf(phase, recipe), 0);
    return [`${iteration.kind}-${iteration.index}: ${trainedOn(iteration, recipe)}`, String(own)];
  });
  const table = [
    ['plan', 'dialogues'],
    ...evaluations('base'),
    ...rows,
    ...evaluations('trained'),
    ...evaluations('swapped'),
  ];
  output.say(`\n${formatTable([...table, ['all', String(total)]])}\n`);
  const phases = counted.map(({ phase: { name, kind }, dialogues }) => ({ name, kind, dialogues }));
  output.emit({ event: 'plan', dialogues: total, phases });
}

/** Says who plays the roles that are not trained, and who judges. */
export function sayFrozen(
  { roles }: Scenario,
  { partners, judge }: { partners: Readonly<Record<string, OpenedFrozen>>; judge: OpenedFrozen | null },
  output: Output,
): void {
  const frozen = Object.keys(roles).filter((role) => roles[role]!.trained === false);
  for (const role of frozen) {
    const partner = partners[role];
    output.say(
      `${role} is not trained: it plays with ${partner === undefined ? 'the base' : partner.folder}`,
    );
    output.emit({
      event: 'frozen',
      role,
      folder: partner?.folder ?? null,
      policy: partner?.model.hash ?? null,
    });
  }
  if (judge === null) return;
  output.say(`judge: ${judge.folder}`);
  output.emit({ event: 'judge', folder: judge.folder, policy: judge.model.hash });
}

/** Progress that says, when the base has been measured, what the dialogues that are left will cost if they are as its own. */
export function withEstimate(
  progress: Progress,
  plan: readonly PlannedPhase[],
  recipe: Recipe,
  output: Output,
): Progress {
  const left = plan.slice(1).reduce((sum, phase) => sum + dialoguesOf(phase, recipe), 0);
  let from = 0;
  let seconds = 0;
  return {
    ...progress,
    begin: (stage, total, unit) => {
      from = performance.now();
      progress.begin(stage, total, unit);
    },
    end: (result) => {
      seconds = (performance.now() - from) / 1000;
      progress.end(result);
    },
    measured: (row) => {
      progress.measured(row);
      if (row.event !== 'evaluation' || row.phase !== plan[0]!.name || !(seconds > 0)) return;
      const estimate = {
        dialogues: left,
        tokens: Math.round(left * Number(row.tokens)),
        seconds: Math.round((left * seconds) / Number(row.n)),
      };
      output.say(
        `estimate: ${left} dialogues left, ${(estimate.tokens / 1000).toFixed(0)} k tokens and ${spanOf(estimate.seconds)} if they are as long as the base's; training comes on top`,
      );
      output.emit({ event: 'estimate', ...estimate });
    },
  };
}
