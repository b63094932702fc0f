// What a kill leaves of a run, at any operation on its files, and what comes of it: a run is watched as it goes, its folder copied
// between two operations or in the middle of one, and each copy is resumed. A kill takes nothing back that the system was handed,
// so the copy is what a killed process leaves; `bench/crash.ts` compares some with what a real SIGKILL left.
import fs from 'node:fs';
import path from 'node:path';
import { type Operation, watchOperations } from './operations.ts';
import { type Ended, optimaHere } from './run.ts';

/** Where a process is killed: before an operation, or when a half of it is done. */
export interface Moment extends Operation {
  readonly half: boolean;
}

export const isAppend = ({ kind, file }: Operation): boolean => kind === 'write' && file === 'events.jsonl';
/** An operation in a word or two, without what differs from one to the next of its kind. */
export const labelOf = (moment: Moment): string =>
  [
    moment.half ? 'half a' : 'before',
    moment.kind,
    moment.file.replace(/[0-9a-f]{16}/, '<hash>').replace(/lock\.[\w-]{21}/, 'lock.<id>') || 'run folder',
    ...(isAppend(moment) ? [/"type":"([\w.]+)"/.exec(moment.text)?.[1]] : []),
  ].join(' ');

/** Carries `work` out and gives every moment at which it could be killed; copies the folder into `states` at those that are `chosen`. */
export async function killAnywhere(
  folder: string,
  work: () => Promise<unknown>,
  states: string | null,
  chosen: (moment: Moment) => boolean = () => false,
): Promise<Moment[]> {
  const moments: Moment[] = [];
  const stop = await watchOperations(folder, (operation, half) => {
    const moment = { ...operation, half };
    moments.push(moment);
    if (states !== null && chosen(moment)) copyOfDead(folder, stateOf(states, moment));
  });
  try {
    await work();
  } finally {
    stop();
  }
  return moments;
}

/** The folder that `killAnywhere` copied at a moment. */
export const stateOf = (states: string, { number, half }: Pick<Moment, 'number' | 'half'>): string =>
  path.join(states, `${number}${half ? '-half' : ''}`);

/** Copies a run, if there is one, as if the process that has it were dead. */
function copyOfDead(folder: string, copy: string): void {
  if (!fs.existsSync(folder)) return;
  fs.cpSync(folder, copy, { recursive: true, verbatimSymlinks: true });
  for (const name of fs.readdirSync(copy)) {
    if (!/^lock(\.[0-9a-f]{16})?$/.test(name)) continue;
    const file = path.join(copy, name);
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(/"began":"[^"]*"/, '"began":"0"'));
  }
}

/** What a run came to: its log and its figures without times, and its files, of which checkpoints are named by their hashes. */
export const outcomeOf = (run: string): string =>
  [
    fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8').replaceAll(/"at":"[^"]*"/g, ''),
    fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8'),
    ...fs.readdirSync(run, { recursive: true, encoding: 'utf8' }).sort(),
  ].join('\n');

/** Goes on with what a killed process left: resumes it, or begins again with the same command where it left no run. */
export const goOn = (run: string, begin: readonly string[]): Promise<Ended> =>
  optimaHere(
    fs.existsSync(path.join(run, 'manifest.json'))
      ? ['train', '--resume', run, '--json', '--workers', '0']
      : [...begin, '--out', run],
  );
