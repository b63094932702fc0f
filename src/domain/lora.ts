// Low-rank adaptation as settings: what is trained of a model where that is not all of its weights. Pure.

/** The matrices of a decoder layer that can be adapted, by Hugging Face's names, in the order of the forward pass. */
export const adaptableMatrices = [
  ...(['q_proj', 'k_proj', 'v_proj', 'o_proj'] as const),
  ...(['gate_proj', 'up_proj', 'down_proj'] as const),
];
export type AdaptableMatrix = (typeof adaptableMatrices)[number];

/**
 * Each target W [out, in] becomes W + s·B·A with A [rank, in], B [out, rank] and s = alpha / rank, and A and B alone are trained
 * (Hu et al. 2021, arXiv 2106.09685, Eq. 3).
 */
export interface LoraConfig {
  readonly rank: number;
  readonly alpha: number;
  /** s = alpha / √rank instead (Kalajdzievski 2023, arXiv 2312.03732). Default false. */
  readonly rankStabilized?: boolean;
  /** Share of the numbers that A reads which are 0 in a pass of training; the others grow by 1 / (1 − share). */
  readonly dropout: number;
  /** Whether a pass of training without dropout computes each layer once more on its way back, and keeps less of it. Default false. */
  readonly recompute?: boolean;
  /** In the order of `adaptableMatrices`. */
  readonly targets: readonly AdaptableMatrix[];
}

/** s of `LoraConfig`. */
export const loraScale = ({ rank, alpha, rankStabilized = false }: LoraConfig): number =>
  alpha / (rankStabilized ? Math.sqrt(rank) : rank);

/**
 * The targets that a text names: `all-linear`, `attention` or names with commas between; null for anything else. All is what
 * is as good as training every weight where attention alone is not (Dettmers et al. 2023, arXiv 2305.14314, §4).
 */
export function loraTargets(text: string): readonly AdaptableMatrix[] | null {
  if (text === 'all-linear') return adaptableMatrices;
  if (text === 'attention') return adaptableMatrices.slice(0, 4);
  const names = text.split(',').map((name) => name.trim());
  const known = adaptableMatrices.filter((name) => names.includes(name));
  return known.length === names.length ? known : null;
}

/** Whether two adapters are of one kind: what one holds can go on being trained as the other. */
export const isSameLora = (one: LoraConfig, other: LoraConfig): boolean =>
  one.rank === other.rank &&
  isClose(loraScale(one), loraScale(other)) &&
  `${one.targets}` === `${other.targets}`;

/** But for rounding: what alpha gives as s need not give alpha back. */
const isClose = (one: number, other: number): boolean => Math.abs(one - other) <= 1e-9 * Math.abs(one);
