// The lessons of a warm-up: what a model that knows nothing learns first, copying and then looking up.
import type { ChatMessage } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { DemonstratedDialogue } from './demonstrations.ts';

/** Mean loss, nats per token, below which a lesson counts as learnt; the order of its lines stays open. */
const echoMastery = 0.45;
/** Lines of the last lesson. */
const longestEcho = 6;
/** Lines that one batch repeats, whatever the lesson: all batches are of about one size. */
const echoLinesPerBatch = 180;

/**
 * The first lessons: a role is told a few lines of its view and repeats them in another order. Every name can be
 * copied and hardly anything else can be learnt, so attention finds the circuit that looks up where a word
 * stood before and copies what followed (induction heads; Olsson et al., 2022). It finds it while the lines
 * are few, so each lesson has one line more than the one before, and begins once that is learnt. Without such
 * lessons, trials of this size were still guessing names after hundreds of steps (docs/decisions.md).
 */
export class EchoLessons {
  private readonly steps: number;
  private lines = 2;
  private step = 0;
  /** Moving average of the lesson's loss; null at its start. */
  private loss: number | null = null;

  constructor(steps: number) {
    this.steps = steps;
  }

  get finished(): boolean {
    return this.lines > longestEcho || this.step >= this.steps;
  }

  write(dialogues: readonly DemonstratedDialogue[], rng: Rng): ChatMessage[][] {
    return Array.from({ length: Math.floor(echoLinesPerBatch / this.lines) }, () => {
      const told = rng.shuffle(privateLines(rng.pick(dialogues), rng).own).slice(0, this.lines);
      return [
        { role: 'system', content: told.join('\n') },
        { role: 'assistant', content: rng.shuffle(told).join('\n') },
      ];
    });
  }

  /** Takes the loss of a lesson's step into account. */
  learn(loss: number): void {
    this.step++;
    this.loss = this.loss === null ? loss : 0.8 * this.loss + 0.2 * loss;
    if (this.loss >= echoMastery) return;
    this.lines++;
    this.loss = null;
  }
}

/** Cues of one lookup lesson. */
const cuesPerLesson = 4;
/** How often a cue comes from another role's lines, which the learner most often does not hold. */
const foreignCues = 0.3;

/**
 * Lessons that go on beside the dialogues, one for each: given two neighbouring words, a role states the one line
 * of its view that holds them, or `?` when none does. In dialogues the same skill (whose birthplace, and do I
 * know it?) decides a few tokens in a hundred, and hasty speakers do without it: trials that had only dialogues
 * read by the relation and not by the subject (docs/decisions.md).
 */
export function lookupLessons(dialogues: readonly DemonstratedDialogue[], rng: Rng): ChatMessage[][] {
  return dialogues.flatMap((dialogue) => {
    const { own, others } = privateLines(dialogue, rng);
    // Of a line alone, every cue has the same answer.
    if (own.length < 2) return [];
    const lesson: ChatMessage[] = [{ role: 'system', content: own.join('\n') }];
    for (let cue = 0; cue < cuesPerLesson; cue++) {
      const foreign = others.length > 0 && rng.next() < foreignCues;
      const words = rng.pick(foreign ? others : own).split(' ');
      const start = rng.int(Math.max(1, words.length - 1));
      const span = words.slice(start, start + 2).join(' ');
      const holders = own.filter((line) => line.includes(span));
      if (holders.length > 1) continue;
      lesson.push({ role: 'user', content: `? ${span}` }, { role: 'assistant', content: holders[0] ?? '?' });
    }
    return [lesson];
  });
}

/** The lines that only a role drawn at random is told, and those that only others are told. */
function privateLines(dialogue: DemonstratedDialogue, rng: Rng): { own: string[]; others: string[] } {
  const views = Object.values(dialogue.views).map((view) => view.split('\n'));
  const role = rng.int(views.length);
  const own = views[role]!;
  const others = views.filter((_, index) => index !== role).flat();
  // What the roles share is the scenario's fixed wording: nothing to learn there.
  return {
    own: own.filter((line) => !others.includes(line)),
    others: others.filter((line) => !own.includes(line)),
  };
}
