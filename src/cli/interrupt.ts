// How a command ends before its work is done: Ctrl-C, or an output that nobody reads or that cannot be written. The work under
// way is asked to stop after its current step; a second Ctrl-C kills.

const codes = { SIGINT: 130, SIGTERM: 143 } as const;
/** What a shell reports of a program that wrote to a closed pipe. */
const closedPipe = 141;
/** How long work goes on that nobody hears of, while it stops. */
const graceMs = 10_000;

let ending: number = codes.SIGINT;
let outputLost = false;
let stop: (() => void) | null = null;

/** The exit code of what was interrupted. */
export const endingCode = (): number => ending;

/** Whether stdout or stderr can no longer be written. */
export const isOutputLost = (): boolean => outputLost;

/** Ends the command as stdout or stderr cannot be written: with one line unless its reader has just gone (`optima list | head -1`). */
export function loseOutput(error: NodeJS.ErrnoException): void {
  if (outputLost) return;
  outputLost = true;
  ending = error.code === 'EPIPE' ? closedPipe : 1;
  if (error.code !== 'EPIPE') process.stderr.write(`error: Cannot write the output: ${error.message}.\n`);
  // Whatever comes of the work, the command did not say it.
  process.once('exit', () => {
    process.exitCode = ending;
  });
  if (stop === null) process.exit(ending);
  stop();
  setTimeout(() => process.exit(ending), graceMs).unref();
}

/** Runs `work` with a signal that the first SIGINT or SIGTERM aborts, or the loss of the output. */
export async function interruptible<T>(
  { remark }: { remark(text: string): void },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const interrupt = (signal: keyof typeof codes) => {
    if (controller.signal.aborted) process.exit(ending);
    ending = codes[signal];
    remark('\ninterrupted: finishing the current step; once more to stop at once');
    controller.abort();
  };
  stop = () => controller.abort();
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    return await work(controller.signal);
  } finally {
    stop = null;
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}
