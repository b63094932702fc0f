// Learning-rate schedules: functions from the step to the rate, read by the training loop.

/** Learning rate of an optimizer step; steps count from 0. */
export type Schedule = (step: number) => number;

/** The same rate at every step. */
export function constant(learningRate: number): Schedule {
  return () => learningRate;
}

/**
 * Rises linearly over `warmupSteps` and falls along half a cosine (Loshchilov and Hutter, 2017) to `floor`.
 * The peak is reached at step `warmupSteps`; the first step already learns: (step + 1) / (warmupSteps + 1)
 * of the peak. From `steps` on the rate stays at `floor`.
 */
export function warmupCosine(options: {
  /** Highest rate. */
  readonly peak: number;
  /** Lowest rate, where the cosine ends. */
  readonly floor: number;
  readonly warmupSteps: number;
  /** All steps of the run, warm-up included. */
  readonly steps: number;
}): Schedule {
  const { peak, floor, warmupSteps, steps } = options;
  return (step) => {
    if (step < warmupSteps) return (peak * (step + 1)) / (warmupSteps + 1);
    const progress = Math.min((step - warmupSteps) / Math.max(steps - warmupSteps, 1), 1);
    return floor + 0.5 * (peak - floor) * (1 + Math.cos(Math.PI * progress));
  };
}
