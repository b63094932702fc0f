// Hyper-parameters of preference training, with defaults for the embedded model.
import type { EpochsConfig } from '../epochs.ts';
import type { PreferenceLoss } from './loss.ts';

/** docs/method.md §7 lists the paper's values for 8 B parameters. */
export interface DpoConfig extends EpochsConfig, PreferenceLoss {
  /** A pair of which a view is longer is left out, in tokens. */
  readonly maxSequenceTokens: number;
  /** Pairs that share a history share its forward and backward pass. */
  readonly packed: boolean;
}

export const defaultDpoConfig: DpoConfig = {
  loss: 'dpo',
  beta: 0.1,
  alpha: 1,
  simpoGamma: 0.5,
  packed: true,
  // The paper's 5e-7 suits 8 B parameters; SFT's rate was scaled by 30 for this width (sft/config.ts), and pairs are fewer.
  learningRate: 1e-4,
  epochs: 1,
  batchSize: 32,
  warmupFraction: 0.1,
  floorFraction: 0,
  weightDecay: 0,
  clipNorm: 1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  maxSequenceTokens: 1024,
  tokensPerPass: 2048,
};
