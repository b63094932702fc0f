// The place of an actor or an action that a machine names and src/actors or src/run provides: a machine started
// without `.provide({ … })` says so.
import { fromPromise, type PromiseActorLogic } from 'xstate';

const error = (kind: string, name: string) => new Error(`${kind} "${name}" was not provided.`);

/** Logic that only rejects. */
export const unprovided = <Output, Input>(name: string): PromiseActorLogic<Output, Input> =>
  fromPromise(() => Promise.reject(error('Actor', name)));

/** An action that throws, which ends its actor with this error. */
export const unprovidedAction = (name: string) => (): void => {
  throw error('Action', name);
};
