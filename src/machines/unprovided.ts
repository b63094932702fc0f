// The place of an actor that a machine names and src/actors or src/run provides.
import { fromPromise, type PromiseActorLogic } from 'xstate';

/** Logic that only rejects: a machine started without `.provide({ actors: { name } })` says so. */
export const unprovided = <Output, Input>(name: string): PromiseActorLogic<Output, Input> =>
  fromPromise(() => Promise.reject(new Error(`Actor "${name}" was not provided.`)));
