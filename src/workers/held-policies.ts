// Policies of one thread by their hash: each is loaded once, and freed when it is neither needed nor in use.
import type { PolicyHash } from '../domain/ids.ts';
import type { LoraConfig } from '../domain/lora.ts';
import type { ModelSession, SessionOptions } from '../domain/model.ts';
import type { SharedWeights } from '../models/llama/held-weights.ts';
import { emptyAdapter, type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { PolicySource } from './host.ts';

/** A policy that is asked for. */
interface Wanted extends PolicySource {
  /** With an adapter of this kind, whose numbers are for others to say. */
  readonly lora?: LoraConfig | null;
}

/** A policy in memory, and what frees it. */
interface Loaded {
  readonly policy: LlamaPolicy;
  readonly free: () => void;
}

interface Held {
  readonly hash: PolicyHash;
  readonly loaded: Promise<Loaded>;
  /** Sessions that are open, and work under way. */
  uses: number;
}

/** Policies that are loaded as they are asked for; until `keep` is called all stay. */
export class HeldPolicies {
  readonly #held = new Map<string, Held>();
  readonly #bases: HeldPolicies;
  /** Weights that another thread shares. */
  readonly #shared = new Map<PolicyHash, SharedWeights>();
  /** Null: all are. */
  #needed: ReadonlySet<PolicyHash> | null = null;

  /** The `known` are used as they are, and never freed: in use for ever. What adapters adapt is held by `bases`, by default here. */
  constructor(known: readonly LlamaPolicy[] = [], bases?: HeldPolicies) {
    this.#bases = bases ?? this;
    for (const policy of known) {
      const loaded = Promise.resolve({ policy, free: () => {} });
      this.#held.set(policy.hash, { hash: policy.hash, loaded, uses: 1 });
    }
  }

  /** Works with the policy, loaded unless it is held. Rejects as `loadPolicy` does; the next use tries again. */
  async use<Result>(
    source: Wanted,
    work: (policy: LlamaPolicy) => Result | Promise<Result>,
  ): Promise<Result> {
    const held = this.#hold(source);
    held.uses++;
    try {
      return await work((await held.loaded).policy);
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

  /** Until `keep` says that they are not needed, a policy of these weights that is loaded reads them where they are. */
  share(weights: SharedWeights): void {
    this.#shared.set(weights.hash, weights);
  }

  /** From now on only these are needed. */
  keep(hashes: readonly PolicyHash[]): void {
    this.#needed = new Set(hashes);
    for (const hash of this.#shared.keys()) if (!this.#needed.has(hash)) this.#shared.delete(hash);
    this.#freeUnused();
  }

  #hold(source: Wanted): Held {
    const { hash, lora = null } = source;
    const key = lora === null ? hash : `${hash} with ${JSON.stringify(lora)}`;
    const known = this.#held.get(key);
    if (known !== undefined) return known;
    const held = { hash, loaded: this.#load(source), uses: 0 };
    this.#held.set(key, held);
    held.loaded.catch(() => this.#held.delete(key));
    return held;
  }

  async #load({ lora = null, ...source }: Wanted): Promise<Loaded> {
    const { folder, hash, base, shared = this.#shared.get(hash) } = source;
    if (lora !== null) {
      return this.#over(source, (whole) => whole.base.withAdapter(emptyAdapter(whole.config, lora)));
    }
    if (base !== undefined) return this.#over(base, (whole) => loadPolicy(folder, { hash, base: whole }));
    const policy = await loadPolicy(folder, { hash, shared });
    return { policy, free: () => policy.dispose() };
  }

  /** What is made of a base, which is in use until it is freed. */
  #over(
    base: PolicySource,
    make: (base: LlamaPolicy) => LlamaPolicy | Promise<LlamaPolicy>,
  ): Promise<Loaded> {
    return new Promise((resolve, reject) => {
      const untilFreed = async (whole: LlamaPolicy) => {
        const policy = await make(whole);
        await new Promise<void>((end) => {
          const free = () => {
            policy.dispose();
            end();
          };
          resolve({ policy, free });
        });
      };
      this.#bases.use(base, untilFreed).catch(reject);
    });
  }

  #freeUnused(): void {
    for (const [key, { hash, loaded, uses }] of this.#held) {
      if (uses > 0 || this.#needed === null || this.#needed.has(hash)) continue;
      this.#held.delete(key);
      void loaded.then(({ free }) => free());
    }
  }
}
