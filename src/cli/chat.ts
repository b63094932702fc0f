// `optima chat <scenario>`: a person takes one role, the model the others. The quickest way to see what a
// scenario asks of an agent.
import readline from 'node:readline';
import type { Command } from 'commander';
import { tap } from 'rxjs';
import type { Cast } from '../actors/index.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { cleaningUp, nearest, OptimaError } from '../domain/errors.ts';
import { childId, type PolicyHash, rootId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { createRng } from '../domain/rng.ts';
import type { Observation } from '../domain/transcript.ts';
import { foldersFor, locateTeam } from '../run/locate.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { messageCap, type Scenario, type Split } from '../scenario/types.ts';
import { interruptible } from './interrupt.ts';
import { frozenNames, openEngine, openModel } from './model.ts';
import {
  type Backend,
  backendOption,
  jsonOption,
  judgeOption,
  modelOption,
  policyOption,
  seedOption,
  splitOption,
  wholeNumber,
} from './options.ts';
import { line, quoted, withOutput } from './output.ts';
import { inSeats } from './report.ts';
import { openScenario } from './watch.ts';

interface ChatOptions {
  readonly role?: string;
  readonly split: Split;
  readonly task: number;
  readonly seed: number;
  readonly model?: string;
  readonly policy?: readonly string[];
  readonly judge?: string;
  readonly backend?: Backend;
  readonly json?: boolean;
}

export function addChat(program: Command): void {
  program
    .command('chat')
    .argument('<scenario>', 'name or file of a scenario')
    .description('take one role yourself and talk with the model')
    .option('--role <name>', 'your role (default: the first one)')
    .addOption(splitOption())
    .option('--task <n>', 'which task of the split, from 0', wholeNumber('--task', 0), 0)
    .addOption(seedOption(1))
    .addOption(modelOption())
    .addOption(policyOption())
    .addOption(judgeOption())
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((name: string, options: ChatOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const located = await locateTeam(options.model, '--model');
          const { scenario } = await openScenario(name, signal);
          const role = roleOf(scenario, options.role);
          const names = await frozenNames(scenario, options);
          if (Object.hasOwn(names.partners, role)) {
            throw new OptimaError('usage', `--policy ${role}=…: you speak for ${role} yourself.`);
          }
          const played = [role, ...Object.keys(names.partners)];
          const [folder, byRole] = foldersFor(scenario, located, played);
          await openEngine(options, output);
          const model = await openModel({ model: folder });
          const opened = [model];
          const open = async (name: string) => {
            const other = await openModel({ model: name });
            opened.push(other);
            return other.generates;
          };
          const partners: Cast = {};
          for (const [partner, name] of Object.entries({ ...byRole, ...names.partners })) {
            Object.assign(partners, { [partner]: { model: await open(name), provenance: 'sampled' } });
          }
          const judge = names.judge === undefined ? undefined : await open(names.judge);
          const { everyRole, runCohort } = await import('../actors/index.ts');
          const { trajectoriesOf } = await import('../rollouts/executor.ts');
          const rng = createRng(options.seed);
          const range = { from: options.task, count: 1 };
          const { id: taskId, task } = (await loadTasks(scenario, options.split, range, rng))[0]!;
          // What is typed on a terminal is shown by it, which spells control characters out.
          const input = readline.createInterface({ input: process.stdin, terminal: false });
          const talk = async () => {
            const tree = rootId('chat', taskId);
            const episode = { id: childId(tree, 0), tree, taskId, task, format: null };
            const held: string[] = [];
            const observe = (observations: readonly Observation[] = []) => {
              for (const { text, to } of observations)
                if (to?.includes(role) ?? true) output.say(`environment: ${quoted(text)}`);
            };
            const show = (message: DialogueMessage) => {
              output.emit({ event: 'message', message });
              if (message.type === 'task.dealt') {
                output.say(`\nYou are ${role}. This is all you see:\n\n${message.views[role]}\n`);
                observe(message.opening);
              } else if (message.type === 'observation.given') {
                observe(message.observations);
              } else if (message.type === 'turn.requested' && message.speaker === role) {
                output.say(`${role} (you):`);
              } else if (message.type === 'turn.taken') {
                const { speaker, text, to, round = [] } = message.turn;
                const said = `${speaker}: ${quoted(text)}`;
                if (speaker === role) for (const kept of held.splice(0)) output.say(kept);
                else if (!(to?.includes(role) ?? true)) return;
                // Who speaks at once with the person is not heard before it.
                else if (round.indexOf(speaker) < round.indexOf(role)) held.push(said);
                else output.say(said);
              }
            };
            const dialogue = runCohort([episode], {
              scenario,
              judge,
              cast: {
                ...everyRole(scenario, model.generates),
                ...partners,
                [role]: { model: personAt(input), provenance: 'human' },
              },
              sampling: {
                temperature: 0,
                topP: 1,
                topK: 0,
                maxTokens: messageCap(scenario, null),
              },
              rng: rng.split('nodes'),
              signal,
              // A person thinks as long as they like.
              turnTimeoutMs: longestTimerMs,
            });
            const [trajectory] = await trajectoriesOf(dialogue.pipe(tap(show)));
            const { outcome, failure, verdict, turns } = trajectory!;
            if (failure !== null) throw new OptimaError('model.failed', `The dialogue failed: ${failure}`);
            const right = scenario.answers(task);
            output.say(`\n${outcome} after ${turns.length} turns.`);
            const rightOnes = right.length === 0 ? '' : `; right: ${line(right.join(' or '))}`;
            const { answer, taskScore, exactMatch, seats } = verdict!;
            output.say(`answer: ${line(answer ?? 'none')}${rightOnes}`);
            output.say(`${scenario.metric.name}: ${taskScore.toFixed(2)}${inSeats(verdict!)}`);
            const summary = { scenario: scenario.name, role, outcome, turns: turns.length };
            const scores = { taskScore, exactMatch, ...(seats && { seats }) };
            output.emit({ event: 'summary', ...summary, answer, right, ...scores });
          };
          await cleaningUp(talk, () => input.close(), ...opened.map(({ dispose }) => dispose));
        }),
      ),
    );
}

function roleOf({ name, roles, protocol }: Scenario, wanted: string | undefined): string {
  const known = Object.keys(roles);
  if (wanted === undefined) return protocol.order[0]!;
  if (known.includes(wanted)) return wanted;
  const guess = nearest(wanted, known);
  throw new OptimaError('usage', `--role ${wanted}: "${name}" has the roles ${known.join(', ')}.`, {
    hint: guess && `Did you mean "${guess}"?`,
  });
}

/** A person at the keyboard, as a model: each message is one line. Its turns are never trained on. */
function personAt(input: readline.Interface): GenerativeModel {
  const lines = input[Symbol.asyncIterator]();
  return {
    hash: 'person' as PolicyHash,
    async generate(requests) {
      const generations = [];
      for (const { id } of requests) {
        const { done, value: text } = await lines.next();
        if (done) throw new OptimaError('model.failed', `${id}: the input ended before the dialogue did.`);
        generations.push({ text, tokenIds: [], logprobs: [], finish: 'stop', promptTokens: 0 } as const);
      }
      return generations;
    },
  };
}
