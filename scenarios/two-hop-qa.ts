// Two-hop questions over facts that are split between two agents: neither can answer alone.
// Alice may hold who directed the film, Bob where that director was born.
import { agreement, compactFormats, defineScenario, dialogue, f1, generated, tagged } from 'optima-actors';
import { demonstrate } from './two-hop-qa/demonstrator.ts';
import {
  commonRelations,
  makeTask,
  type Relation,
  rareRelations,
  relations,
  type TwoHopTask,
} from './two-hop-qa/world.ts';

const tasksAbout = (relations: readonly Relation[]) =>
  generated((rng, split) => makeTask({ facts: [6, 12], relations }, rng, split));

const view = (self: string, partner: string, task: TwoHopTask, facts: readonly string[]) =>
  [
    `You are ${self}, working with ${partner}. Each knows different facts.`,
    'Share what is needed and end with <A> answer</A>.',
    task.question,
    ...facts,
  ].join('\n');

export default defineScenario({
  name: 'two-hop-qa',
  kind: 'information-exchange',
  description: 'Two agents, each with half of the facts, answer a question that needs one fact from either.',
  tasks: tasksAbout(relations),
  // To see what a team that was trained on the one half makes of relation words that it has not met in training.
  variants: { common: tasksAbout(commonRelations), rare: tasksAbout(rareRelations) },
  roles: {
    alice: { sees: (task) => view('Alice', 'Bob', task, task.left) },
    bob: { sees: (task) => view('Bob', 'Alice', task, task.right) },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 10, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => task.answers,
  metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: compactFormats,
  demonstrate: (task, rng) => demonstrate(task, rng, [2, 3]),
});
