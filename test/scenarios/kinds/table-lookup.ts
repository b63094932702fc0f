// A clerk knows the question; a reader can look rows of a table up, with a tool, and keeps the floor to read what it gives.

import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  tagged,
  tool,
  tools,
} from 'optima-actors';
import { z } from 'zod';

interface Lookup {
  readonly city: string;
  readonly mayors: Readonly<Record<string, string>>;
}

const cities = ['Oslo', 'Rome', 'Lima', 'Bern', 'Cairo', 'Delhi'];
const people = ['Ada', 'Ben', 'Cleo', 'Dan', 'Eve', 'Finn'];
const end = 'End with <A>name</A>.';

const lookup = tool('lookup', z.enum(cities), (city, { task }: { task: Lookup }) => task.mayors[city]!);

export default defineScenario({
  name: 'table-lookup',
  kind: 'debate',
  description: 'One agent has the question, the other a tool that reads a table.',
  tasks: generated((rng): Lookup => {
    const names = rng.shuffle(people);
    return {
      city: rng.pick(cities),
      mayors: Object.fromEntries(cities.map((city, row) => [city, names[row]!])),
    };
  }),
  roles: {
    clerk: { sees: ({ city }) => `Find the mayor of ${city}. Ask the reader. ${end}` },
    reader: {
      sees: () => `Look a city's mayor up with <call>lookup city</call>, and tell the clerk. ${end}`,
    },
  },
  environment: tools([lookup]),
  protocol: dialogue({
    order: ['clerk', 'reader'],
    maxTurns: 8,
    next: (turns) => {
      const last = turns.at(-1);
      return last?.speaker === 'clerk' || last?.observed !== undefined ? 'reader' : 'clerk';
    },
    until: agreement(),
  }),
  answer: tagged('A'),
  answers: ({ city, mayors }) => [mayors[city]!],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
