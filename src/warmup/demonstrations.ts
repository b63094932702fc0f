// Dialogues written by the scenarios' demonstrators, as training sequences: the data of `optima warmup`.
import { OptimaError } from '../domain/errors.ts';
import type { ChatMessage } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import { type Demonstration, type Scenario, type Split, systemText } from '../scenario/types.ts';

/** A demonstrated dialogue with each role's system text. */
export interface DemonstratedDialogue {
  readonly views: Readonly<Record<string, string>>;
  readonly turns: Demonstration['turns'];
}

/**
 * `count` fresh dialogues, the scenarios in turn. The same generator gives the same dialogues; another
 * `rng` gives other tasks, so that an endless stream never repeats one. Throws `scenario.invalid` for a
 * scenario without a demonstrator.
 */
export async function demonstrateDialogues(
  scenarios: readonly Scenario[],
  split: Split,
  count: number,
  rng: Rng,
): Promise<DemonstratedDialogue[]> {
  const dialogues: DemonstratedDialogue[] = [];
  for (const [position, scenario] of scenarios.entries()) {
    if (scenario.demonstrate === undefined) {
      throw new OptimaError(
        'scenario.invalid',
        `Scenario "${scenario.name}" has no demonstrator to learn from.`,
        {
          hint: 'Give it a `demonstrate(task, rng)`, or leave it out of the warm-up.',
        },
      );
    }
    const share = Math.floor((count - position + scenarios.length - 1) / scenarios.length);
    const own = rng.split(scenario.name);
    const tasks = await scenario.tasks.load(split, share, own.split('tasks'));
    for (const [index, task] of tasks.entries()) {
      const { format, turns } = scenario.demonstrate(task, own.split('turns').split(index));
      const roles = Object.keys(scenario.roles);
      const views = roles.map((role) => [role, systemText(scenario, role, task, format)] as const);
      dialogues.push({ views: Object.fromEntries(views), turns });
    }
  }
  return dialogues;
}

/** Every text of a dialogue: what the tokenizer is trained on. */
export function textsOf(dialogue: DemonstratedDialogue): string[] {
  return [...Object.values(dialogue.views), ...dialogue.turns.map((turn) => turn.text)];
}

/** The dialogue as each role sees it, its own messages as the assistant's. */
export function viewsOf(dialogue: DemonstratedDialogue): ChatMessage[][] {
  return Object.entries(dialogue.views).map(([role, view]) => [
    { role: 'system', content: view },
    ...dialogue.turns.map(
      ({ speaker, text }): ChatMessage => ({ role: speaker === role ? 'assistant' : 'user', content: text }),
    ),
  ]);
}
