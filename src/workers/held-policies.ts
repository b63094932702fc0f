// Policies of one thread by their hash: each is loaded once, and freed when it is neither needed nor in use.
import type { PolicyHash } from '../domain/ids.ts';
import type { ModelSession, SessionOptions } from '../domain/model.ts';
import { type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { PolicySource } from './host.ts';

interface Held {
  readonly policy: Promise<LlamaPolicy>;
  /** Sessions that are open, and work under way. */
  uses: number;
}

/** Policies that are loaded as they are asked for; until `keep` is called all stay. */
export class HeldPolicies {
  readonly #held = new Map<PolicyHash, Held>();
  /** Null: all are. */
  #needed: ReadonlySet<PolicyHash> | null = null;

  /** The `known` are used as they are, and never freed: in use for ever. */
  constructor(known: readonly LlamaPolicy[] = []) {
    for (const policy of known) this.#held.set(policy.hash, { policy: Promise.resolve(policy), uses: 1 });
  }

  /** Works with the policy, loaded unless it is held. Rejects as `loadPolicy` does; the next use tries again. */
  async use<Result>(
    source: PolicySource,
    work: (policy: LlamaPolicy) => Result | Promise<Result>,
  ): Promise<Result> {
    const held = this.#hold(source);
    held.uses++;
    try {
      return await work(await held.policy);
    } finally {
      held.uses--;
      this.#freeUnused();
    }
  }

  /** A session of the policy, which is in use until the session is closed and its last call has ended. */
  openSession(source: PolicySource, options?: SessionOptions): Promise<ModelSession> {
    return new Promise((resolve, reject) => {
      const untilClosed = (policy: LlamaPolicy) =>
        new Promise<void>((end) => {
          const session = policy.openSession(options);
          resolve({
            hash: session.hash,
            generate: (requests, options) => this.use(source, () => session.generate(requests, options)),
            score: (requests, options) => this.use(source, () => session.score(requests, options)),
            measure: () => session.measure(),
            close: () => {
              session.close();
              end();
            },
          });
        });
      this.use(source, untilClosed).catch(reject);
    });
  }

  /** From now on only these are needed. */
  keep(hashes: readonly PolicyHash[]): void {
    this.#needed = new Set(hashes);
    this.#freeUnused();
  }

  #hold(source: PolicySource): Held {
    const known = this.#held.get(source.hash);
    if (known !== undefined) return known;
    const held = { policy: loadPolicy(source.folder, { hash: source.hash }), uses: 0 };
    this.#held.set(source.hash, held);
    held.policy.catch(() => this.#held.delete(source.hash));
    return held;
  }

  #freeUnused(): void {
    for (const [hash, { policy, uses }] of this.#held) {
      if (uses > 0 || this.#needed === null || this.#needed.has(hash)) continue;
      this.#held.delete(hash);
      void policy.then((unused) => unused.dispose());
    }
  }
}
