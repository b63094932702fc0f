// flea-market: a seller and a buyer agree on a price; each gets what the price is worth to it.
import { agreement, defineScenario, dialogue, generated, type Rng, tagged } from 'optima-actors';

function makeTask(rng: Rng) {
  const cost = 10 + rng.int(40);
  return { cost, worth: cost + 10 + rng.int(40) };
}

export default defineScenario({
  name: 'flea-market',
  kind: 'information-exchange',
  description: 'A seller and a buyer agree on a price; each has a score of its own.',
  tasks: generated(makeTask),
  roles: {
    seller: { sees: ({ cost }) => `You sell a lamp that cost you ${cost}. Agree on a price: <A>price</A>.` },
    buyer: {
      sees: ({ worth }) => `You buy a lamp that is worth ${worth} to you. Agree on a price: <A>price</A>.`,
    },
  },
  protocol: dialogue({ order: ['seller', 'buyer'], maxTurns: 6, until: agreement() }),
  answer: tagged('A'),
  // A deal is worth 1 to the team; each seat gets its share of what there is to gain. No deal, or one at a loss: nothing.
  metric: ({ task: { cost, worth }, answer, outcome }) => {
    const gain = (Number(answer) - cost) / (worth - cost);
    if (outcome !== 'agreed' || answer === null || !(gain >= 0 && gain <= 1))
      return { seats: { seller: 0, buyer: 0 }, score: 0 };
    return { seats: { seller: gain, buyer: 1 - gain }, score: 1 };
  },
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  // Wordy most of the time, and then the seller mostly asks for more than the lamp is worth and the buyer refuses.
  demonstrate: ({ cost, worth }, rng) => {
    const wordy = rng.next() < 0.7;
    const greedy = wordy && rng.next() < 0.6;
    const asked = `<A>${cost + (greedy ? 50 : 10)}</A>`;
    const fair = cost + (greedy ? 50 : 10) <= worth;
    const offer = `<A>${worth - 10}</A>`;
    const [hello, no, yes] = wordy
      ? [
          'Good morning! What a fine lamp this is. You may have it for',
          'That is too much for me. I could give',
          'Very well, it is a deal at',
        ]
      : ['', '', ''];
    const line = (said: string, price: string) => (said ? `${said} ${price}.` : price);
    const seller = { speaker: 'seller' as const };
    const buyer = { speaker: 'buyer' as const };
    const opening = { ...seller, text: line(hello!, asked) };
    if (fair) return { turns: [opening, { ...buyer, text: line(yes!, asked) }] };
    return {
      turns: [
        opening,
        { ...buyer, text: line(no!, offer) },
        { ...seller, text: wordy ? `No, I will not sell it for that. ${line('I want', asked)}` : asked },
        { ...buyer, text: line(no!, offer) },
        { ...seller, text: wordy ? `I am sorry, then. ${line('I want', asked)}` : asked },
        { ...buyer, text: line(no!, offer) },
      ],
    };
  },
});
