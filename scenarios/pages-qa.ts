// Two-hop questions over pages of facts: as two-hop-qa, but each agent has a page of some twenty sentences, of which an
// untrained team recites much before it answers.
import { agreement, compactFormats, defineScenario, dialogue, f1, generated, tagged } from 'optima-actors';
import { demonstrate } from './two-hop-qa/demonstrator.ts';
import { makeTask, relations, type TwoHopTask } from './two-hop-qa/world.ts';

const view = (self: string, partner: string, task: TwoHopTask, facts: readonly string[]) =>
  [
    `You are ${self}, working with ${partner}. Each has a page of facts.`,
    'Share what is needed and end with <A> answer</A>.',
    task.question,
    ...facts,
  ].join('\n');

export default defineScenario({
  name: 'pages-qa',
  kind: 'information-exchange',
  description:
    'Two agents, each with a page of facts, answer a question that needs one fact from either page.',
  tasks: generated((rng, split) => makeTask({ facts: [34, 42], relations }, rng, split)),
  roles: {
    alice: { sees: (task) => view('Alice', 'Bob', task, task.left) },
    bob: { sees: (task) => view('Bob', 'Alice', task, task.right) },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 10, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => task.answers,
  metric: f1,
  maxMessageTokens: 200,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: compactFormats,
  demonstrate: (task, rng) => demonstrate(task, rng, [11, 16]),
});
