// A policy host without worker threads: everything is computed here, one call after the other.
import type { LlamaPolicy } from '../models/llama/index.ts';
import { onThisThread } from '../training/step.ts';
import { HeldPolicies } from './held-policies.ts';
import { modelOf, type PolicyHost } from './host.ts';

/** Uses the `known` policies as they are and never frees them; loads others from their checkpoints. */
export function inProcessHost(known: readonly LlamaPolicy[]): PolicyHost {
  const policies = new HeldPolicies(known);
  return {
    async modelsOf(source) {
      await policies.use(source, () => {});
      const model = modelOf(source.hash, (options) => {
        const opened = policies.openSession(source, options);
        // Its calls are told.
        opened.catch(() => {});
        return {
          hash: source.hash,
          generate: async (requests, options) => (await opened).generate(requests, options),
          score: async (requests, options) => (await opened).score(requests, options),
          measure: async () => (await opened).measure?.() ?? null,
          close: () => {
            opened.then(
              (session) => session.close(),
              () => {},
            );
          },
        };
      });
      return [model];
    },
    gradientsOf: (objective, _source, policy) => onThisThread(policy, objective),
    keep: (hashes) => policies.keep(hashes),
    stop: async () => policies.keep([]),
  };
}
