// Asking again from time to time, while the page is to be seen and its answers may change.
import { useEffect } from 'preact/hooks';
import { isStatic, revision } from './source.ts';

/** Asks again for all that the page shows, every so many milliseconds; 0: never. */
export function usePoll(intervalMs: number): void {
  useEffect(() => {
    if (isStatic || intervalMs === 0) return;
    const timer = setInterval(() => {
      if (document.visibilityState !== 'hidden') revision.value++;
    }, intervalMs);
    return () => clearInterval(timer);
  }, [intervalMs]);
}
