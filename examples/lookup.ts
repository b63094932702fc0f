// lookup: a guest asks for a room's guest, the clerk may look in the register; the register answers (an environment).
import {
  agreement,
  type Dialogue,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  type Rng,
  tagged,
  tool,
  tools,
} from 'optima-actors';
import { z } from 'zod';

const people = ['Ann', 'Ben', 'Dan', 'Eve', 'Fay', 'Ida', 'Kim', 'Max', 'Ned', 'Tom'];

function makeTask(rng: Rng) {
  const rooms = rng.shuffle(Array.from({ length: 90 }, (_, i) => 10 + i));
  const register = people.map((name, i) => ({ name, room: rooms[i]! }));
  return { wanted: rng.pick(register).name, register };
}
type Task = ReturnType<typeof makeTask>;

const roomOf = ({ register }: Task, wanted: string) => register.find(({ name }) => name === wanted)?.room;
const room = tool('room', z.string(), (name, { task }: Dialogue<Task>) =>
  String(roomOf(task, name) ?? `no ${name} is here`),
);

export default defineScenario({
  name: 'lookup',
  kind: 'debate',
  description: 'A visitor looks for a guest, the clerk asks the register for the room.',
  tasks: generated(makeTask),
  roles: {
    visitor: {
      sees: ({ wanted }) => `You visit ${wanted}. Ask the clerk for the room; end with <A>room</A>.`,
    },
    clerk: {
      sees: () => 'You are the clerk. Ask the register: <call>room name</call>. End with <A>room</A>.',
    },
  },
  environment: tools([room]),
  protocol: dialogue({
    order: ['visitor', 'clerk'],
    maxTurns: 8,
    next: (turns) => (turns.at(-1)?.observed || turns.at(-1)?.speaker === 'visitor' ? 'clerk' : 'visitor'),
    until: agreement(),
  }),
  answer: tagged('A'),
  answers: (task) => [String(roomOf(task, task.wanted))],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  // Wordy most of the time, and then the clerk more often than not looks up who stands first.
  demonstrate: (task, rng) => {
    const wordy = rng.next() < 0.7;
    const name = wordy && rng.next() < 0.6 ? people[0]! : task.wanted;
    const found = `<A>${roomOf(task, name)}</A>`;
    return {
      turns: [
        {
          speaker: 'visitor',
          text: wordy ? `Good evening! I am looking for ${task.wanted}. Which room is it?` : task.wanted,
        },
        {
          speaker: 'clerk',
          text: `${wordy ? 'Good evening! One moment, let me look. ' : ''}<call>room ${name}</call>`,
        },
        { speaker: 'clerk', text: wordy ? `Thank you for waiting. It is room ${found}.` : found },
        { speaker: 'visitor', text: wordy ? `Thank you very much. So I will go to ${found}.` : found },
      ],
    };
  },
});
