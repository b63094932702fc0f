// Each of three judges has seen one sign of what the weather will be. They vote at once: nobody can follow another's vote
// before the next round.
import { defineScenario, dialogue, exactMatch, generated, majority, tagged } from 'optima-actors';

interface Weather {
  readonly signs: Readonly<Record<'ann' | 'ben' | 'cyd', 'rain' | 'sun'>>;
}

const sees = (sign: string) =>
  `The sign that you saw says ${sign}. Vote for what most signs say, rain or sun: <A>vote</A>.`;

export default defineScenario({
  name: 'votes',
  kind: 'debate',
  description: 'Three agents vote at once, round after round, until most agree.',
  tasks: generated((rng): Weather => {
    const sign = () => rng.pick(['rain', 'sun'] as const);
    return { signs: { ann: sign(), ben: sign(), cyd: sign() } };
  }),
  roles: {
    ann: { sees: ({ signs }) => sees(signs.ann) },
    ben: { sees: ({ signs }) => sees(signs.ben) },
    cyd: { sees: ({ signs }) => sees(signs.cyd) },
  },
  protocol: dialogue({ order: ['ann', 'ben', 'cyd'], together: true, maxTurns: 9, until: majority() }),
  answer: tagged('A'),
  answers: ({ signs }) => {
    const rain = Object.values(signs).filter((sign) => sign === 'rain').length;
    return [rain > 1 ? 'rain' : 'sun'];
  },
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
