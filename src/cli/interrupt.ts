// Ctrl-C: the first one asks the work under way to stop after its current step, the second one kills.
import type { Output } from './output.ts';

/** Runs `work` with a signal that the first SIGINT (or SIGTERM) aborts. */
export async function interruptible<T>(
  { remark }: Output,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    remark('\ninterrupted: finishing the current step; once more to stop at once');
    controller.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}
