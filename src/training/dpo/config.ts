// Hyper-parameters of preference training, with defaults for the embedded model.
import type { EpochsConfig } from '../epochs.ts';
import { defaultSftConfig } from '../sft/config.ts';
import type { PreferenceLoss } from './loss.ts';

/** docs/method.md §7 lists the paper's values for 8 B parameters. */
export interface DpoConfig extends EpochsConfig, PreferenceLoss {
  /** A pair of which a view is longer is left out, in tokens. */
  readonly maxSequenceTokens: number;
  /** Pairs that share a history share its forward and backward pass. */
  readonly packed: boolean;
}

// As in fine-tuning, for its reasons.
const { warmupFraction, floorFraction, weightDecay, clipNorm, beta1, beta2, epsilon } = defaultSftConfig;

export const defaultDpoConfig: DpoConfig = {
  loss: 'dpo',
  beta: 0.1,
  alpha: 1,
  simpoGamma: 0.5,
  packed: true,
  // The paper's 5e-7 suits 8 B parameters; SFT's rate was scaled by 30 for this width (sft/config.ts), and pairs are fewer.
  learningRate: 1e-4,
  epochs: 2,
  batchSize: 32,
  ...{ warmupFraction, floorFraction, weightDecay, clipNorm, beta1, beta2, epsilon },
  maxSequenceTokens: 1024,
  tokensPerPass: 2048,
};
