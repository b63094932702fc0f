// A negotiation: each side has a limit that the other must not learn, and thinks in private notes before it speaks.
import { agreement, defineScenario, dialogue, generated, tagged } from 'optima-actors';

interface Deal {
  /** The least that the seller takes. */
  readonly floor: number;
  /** The most that the buyer pays, above the floor. */
  readonly ceiling: number;
}

const notes = 'Think in <think>…</think>: nobody else reads it.';

export default defineScenario({
  name: 'secret-price',
  kind: 'debate',
  description: 'Buyer and seller agree on a price within limits that each keeps to itself.',
  tasks: generated((rng): Deal => {
    const floor = 10 + rng.int(20);
    return { floor, ceiling: floor + 4 + rng.int(10) };
  }),
  roles: {
    seller: { sees: ({ floor }) => `Sell for at least ${floor}. ${notes} End with <A>price</A>.` },
    buyer: { sees: ({ ceiling }) => `Buy for at most ${ceiling}. ${notes} End with <A>price</A>.` },
  },
  notes: 'think',
  protocol: dialogue({ order: ['seller', 'buyer'], maxTurns: 8, until: agreement() }),
  answer: tagged('A'),
  answers: ({ floor, ceiling }) =>
    Array.from({ length: ceiling - floor + 1 }, (_, step) => String(floor + step)),
  metric: {
    name: 'within-limits',
    score: (price, prices) => {
      const hit = price !== null && prices.includes(price);
      return { score: hit ? 1 : 0, exactMatch: hit };
    },
  },
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
