// A worker thread: an engine of its own that generates, scores and computes gradients as it is told.
import { parentPort, workerData } from 'node:worker_threads';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { ModelSession } from '../domain/model.ts';
import { type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import { overwrite, startEngine } from '../tensor/index.ts';
import { ParameterLayout } from '../training/gradients.ts';
import { objectiveOf } from '../training/objective.ts';
import { computePassGradients } from '../training/step.ts';
import {
  type Command,
  type FromWorker,
  type PassResult,
  type PolicySource,
  type ToWorker,
  type TraineeWeights,
  toPlain,
  type WorkerSetting,
} from './protocol.ts';

const port = parentPort!;
const say = (message: FromWorker) => port.postMessage(message);

/** The frozen base and the policy under way. */
const maxPolicies = 2;
/** The one used longest ago first. */
const policies = new Map<PolicyHash, Promise<LlamaPolicy>>();
const sessions = new Map<number, Promise<ModelSession>>();
const running = new Map<number, AbortController>();
/** The policy whose weights follow the main thread's, and which weights it has. */
let trainee: { readonly hash: PolicyHash; readonly policy: LlamaPolicy; version: string } | null = null;

/** Whoever asked for a policy that cannot be loaded is told; to let it go is no second failure. */
const notLoaded = () => {};

async function loadChecked({ folder, hash }: PolicySource): Promise<LlamaPolicy> {
  const policy = await loadPolicy(folder);
  if (policy.hash === hash) return policy;
  policy.dispose();
  throw new OptimaError(
    'checkpoint.invalid',
    `${folder}: its weights have the hash ${policy.hash}, not ${hash}.`,
  );
}

function policyOf(source: PolicySource): Promise<LlamaPolicy> {
  const policy = policies.get(source.hash) ?? loadChecked(source);
  policies.delete(source.hash);
  policies.set(source.hash, policy);
  policy.catch(() => {
    if (policies.get(source.hash) === policy) policies.delete(source.hash);
  });
  while (policies.size > maxPolicies) {
    const [hash, oldest] = [...policies][0]!;
    policies.delete(hash);
    void oldest.then((unused) => unused.dispose(), notLoaded);
  }
  return policy;
}

function sessionOf(source: PolicySource, id: number): Promise<ModelSession> {
  const session = sessions.get(id) ?? policyOf(source).then((policy) => policy.openSession());
  sessions.set(id, session);
  session.catch(() => sessions.delete(id));
  return session;
}

/** The policy in training with the weights of this step. */
async function traineeOf(source: PolicySource, { values, version }: TraineeWeights): Promise<LlamaPolicy> {
  if (trainee?.hash !== source.hash) {
    trainee?.policy.dispose();
    trainee = null;
    trainee = { hash: source.hash, policy: await loadChecked(source), version: '' };
  }
  const { policy } = trainee;
  if (trainee.version === version) return policy;
  const layout = new ParameterLayout(policy.parameters);
  for (const [name, variable] of policy.parameters) overwrite(variable, layout.partOf(values, name));
  trainee.version = version;
  return policy;
}

async function carryOut(command: Command, signal: AbortSignal): Promise<unknown> {
  switch (command.type) {
    case 'generate':
      return (await sessionOf(command.policy, command.session)).generate(command.requests, { signal });
    case 'score':
      return (await sessionOf(command.policy, command.session)).score(command.requests, { signal });
    case 'close':
      void sessions.get(command.session)?.then((session) => session.close(), notLoaded);
      sessions.delete(command.session);
      return null;
    case 'gradients': {
      const policy = await traineeOf(command.policy, command.weights);
      const layout = new ParameterLayout(policy.parameters);
      const arrayFor = (name: string) => layout.partOf(command.gradients, name);
      const objective = objectiveOf(command.objective);
      const { pass, terms } = command;
      const { loss, figures, gradients } = computePassGradients(policy, objective, pass, terms, arrayFor);
      return { loss, figures, names: [...gradients.keys()] } satisfies PassResult;
    }
  }
}

async function answer(id: number, command: Command): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    say({ id, result: await carryOut(command, controller.signal) });
  } catch (error) {
    say({ id, error: toPlain(error) });
  } finally {
    running.delete(id);
  }
}

try {
  const engine = await startEngine((workerData as WorkerSetting).engine);
  port.on('message', (message: ToWorker) => {
    if ('abort' in message) running.get(message.id)?.abort();
    else void answer(message.id, message.command);
  });
  say({ ready: true, engine: engine.name });
} catch (error) {
  say({ failed: toPlain(error) });
}
