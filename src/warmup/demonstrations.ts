// Dialogues written by the scenarios' demonstrators, as training sequences: the data of `optima warmup`.
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { ChatMessage } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import { type Deal, type Turn, viewOf, writtenOf } from '../domain/transcript.ts';
import { Course } from '../scenario/course.ts';
import { type Demonstration, type Scenario, type Split, systemText } from '../scenario/types.ts';

/** A demonstrated dialogue; each role's view has its format prompt. */
export interface DemonstratedDialogue extends Deal {
  readonly turns: readonly Turn[];
}

/**
 * `count` fresh dialogues, the scenarios in turn. The same generator gives the same dialogues; another
 * `rng` gives other tasks, so that an endless stream never repeats one. Throws `scenario.invalid` for a
 * scenario without a demonstrator, and where one lets a role speak that has not the floor.
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
      dialogues.push(enact(scenario, task, scenario.demonstrate(task, own.split('turns').split(index))));
    }
  }
  return dialogues;
}

/** A demonstration as the agents would see it, the environment's words included. */
function enact(
  scenario: Scenario,
  task: unknown,
  { format = null, turns }: Demonstration,
): DemonstratedDialogue {
  const fail = (problem: string) =>
    new OptimaError('scenario.invalid', `Scenario "${scenario.name}": demonstrate: ${problem}`);
  const course = new Course(scenario, task);
  let said: readonly Turn[] = [];
  try {
    for (const { speaker, text } of turns) {
      const floor = course.floor(said);
      if (floor.speaker !== speaker)
        throw fail(`turn ${said.length} is by ${speaker}, but ${floor.speaker} has the floor.`);
      said = course.record(said, floor, text);
    }
    const { views, ...deal } = course.deal();
    const seen = Object.keys(views).map((role) => [role, systemText(scenario, role, task, format)]);
    return { ...deal, views: Object.fromEntries(seen), turns: said };
  } catch (error) {
    throw error instanceof OptimaError ? error : fail(messageOf(error));
  }
}

/** Every text of a dialogue: what the tokenizer is trained on. */
export function textsOf({ views, opening = [], turns }: DemonstratedDialogue): string[] {
  const said = turns.flatMap((turn) => [writtenOf(turn), ...(turn.observed ?? []).map(({ text }) => text)]);
  return [...Object.values(views), ...opening.map(({ text }) => text), ...said];
}

/** The dialogue as each role sees it, its own messages as the assistant's. */
export function viewsOf(dialogue: DemonstratedDialogue): ChatMessage[][] {
  return Object.keys(dialogue.views).map((role) => viewOf(role, dialogue, dialogue.turns));
}
