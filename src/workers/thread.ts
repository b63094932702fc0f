// The worker's end: generates, scores and computes gradients as the main thread tells it.
import type { ModelSession } from '../domain/model.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { overwrite } from '../tensor/index.ts';
import { ParameterLayout } from '../training/gradients.ts';
import { objectiveOf } from '../training/objectives.ts';
import { computePassGradients } from '../training/step.ts';
import { HeldPolicies } from './held-policies.ts';
import {
  type Command,
  type FromWorker,
  type PassResult,
  type SessionSource,
  type ToWorker,
  toPlain,
} from './protocol.ts';

type GradientsCommand = Extract<Command, { type: 'gradients' }>;

/** What a worker holds and does; it needs no thread of its own. */
export class WorkerThread {
  readonly #say: (message: FromWorker) => void;
  readonly #policies = new HeldPolicies();
  /** Policies whose weights follow the main thread's: that of the training under way. */
  readonly #trainees = new HeldPolicies([], this.#policies);
  /** Which weights each of them has. */
  readonly #versions = new WeakMap<LlamaPolicy, string>();
  readonly #sessions = new Map<number, Promise<ModelSession>>();
  readonly #running = new Map<number, AbortController>();

  /** `say` takes what becomes of each command. */
  constructor(say: (message: FromWorker) => void) {
    this.#say = say;
  }

  /** Carries out a command, or stops one; or hears of weights that commands will ask for. */
  receive(message: ToWorker): void {
    if ('shared' in message) this.#policies.share(message.shared);
    else if ('abort' in message) this.#running.get(message.id)?.abort();
    else void this.#answer(message.id, message.command);
  }

  async #answer(id: number, command: Command): Promise<void> {
    const controller = new AbortController();
    this.#running.set(id, controller);
    try {
      this.#say({ id, result: await this.#carryOut(command, controller.signal) });
    } catch (error) {
      this.#say({ id, error: toPlain(error) });
    } finally {
      this.#running.delete(id);
    }
  }

  async #carryOut(command: Command, signal: AbortSignal): Promise<unknown> {
    switch (command.type) {
      case 'generate': {
        const session = await this.#sessionOf(command);
        return session.generate(command.requests, { signal });
      }
      case 'score': {
        const session = await this.#sessionOf(command);
        return session.score(command.requests, { signal });
      }
      case 'measure': {
        const session = await this.#sessionOf(command);
        return session.measure?.() ?? null;
      }
      case 'close':
        this.#sessions.get(command.session)?.then(
          (session) => session.close(),
          // Whoever asked for a policy that cannot be loaded was told.
          () => {},
        );
        this.#sessions.delete(command.session);
        return null;
      case 'gradients':
        this.#trainees.keep([command.policy.hash]);
        return this.#trainees.use({ ...command.policy, lora: command.lora }, (trainee) =>
          this.#computePass(trainee, command),
        );
      case 'keep':
        for (const held of [this.#policies, this.#trainees]) held.keep(command.hashes);
        return null;
    }
  }

  #sessionOf({ policy, session: id, options }: SessionSource): Promise<ModelSession> {
    const session = this.#sessions.get(id) ?? this.#policies.openSession(policy, options);
    this.#sessions.set(id, session);
    session.catch(() => this.#sessions.delete(id));
    return session;
  }

  #computePass(trainee: LlamaPolicy, command: GradientsCommand): PassResult {
    const { values, version } = command.weights;
    const layout = new ParameterLayout(trainee.parameters);
    if (this.#versions.get(trainee) !== version) {
      for (const [name, variable] of trainee.parameters) overwrite(variable, layout.partOf(values, name));
      this.#versions.set(trainee, version);
    }
    const { loss, figures, gradients } = computePassGradients(
      trainee,
      objectiveOf(command.objective),
      command.pass,
      command.terms,
      (name) => layout.partOf(command.gradients, name),
      command.seed,
    );
    return { loss, figures, names: [...gradients.keys()] };
  }
}
