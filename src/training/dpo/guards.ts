// What goes wrong in preference training although the loss falls, said in words. Pure.
import type { StepReport } from '../loop.ts';

/** A mean reward margin beyond this, in nats, is no longer learnt from the difference of two turns. */
const mostMargin = 20;
/** Nats per token by which the chosen turns may be less likely than under the reference. */
const mostFall = 1;
/** Fewer pairs than this are noise. */
const fewestPairs = 32;
/** Chosen turns of fewer tokens than this … */
const shortTurn = 3;
/** … and of less than this share of the rejected ones teach silence. */
const shortShare = 0.25;

/** A sentence for each guard that the steps of a training with this β run into; `pairs` it trained on. */
export function guardTraining(
  reports: readonly Pick<StepReport, 'figures'>[],
  pairs: number,
  beta: number,
): string[] {
  const last = reports.at(-1)!.figures;
  const fall = -last['rewards/chosen']! / beta / last['tokens/chosen']!;
  const meanOf = (name: string) =>
    reports.reduce((sum, { figures }) => sum + figures[name]!, 0) / reports.length;
  const [chosen, rejected] = [meanOf('tokens/chosen'), meanOf('tokens/rejected')];
  const words: string[] = [];
  if (pairs < fewestPairs) words.push(`too few pairs: ${pairs} are less than ${fewestPairs}`);
  if (last['rewards/margins']! > mostMargin) {
    words.push(`margin explosion: a mean reward margin of ${last['rewards/margins']!.toFixed(1)} nats`);
  }
  if (fall > mostFall) {
    words.push(
      `collapse of the chosen turns: ${fall.toFixed(2)} nats per token less likely than under the reference`,
    );
  }
  if (chosen < shortTurn && chosen < shortShare * rejected) {
    words.push(
      `length collapse: chosen turns have ${chosen.toFixed(1)} tokens, rejected ones ${rejected.toFixed(1)}`,
    );
  }
  return words;
}
