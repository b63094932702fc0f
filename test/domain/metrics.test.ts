import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  bootstrapInterval,
  mean,
  percentile,
  standardDeviation,
  TeamFigures,
} from '../../src/domain/metrics.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import type { Trajectory, Turn } from '../../src/domain/transcript.ts';
import { measureTeam } from '../support/metrics.ts';

const dialogue = (tokens: readonly number[], score: number | null, outcome = 'agreed', failure = 'why') =>
  ({
    turns: tokens.map((count) => ({ tokenIds: Array.from({ length: count }, () => 1) }) as unknown as Turn),
    outcome: score === null ? 'failed' : outcome,
    failure: score === null ? failure : null,
    verdict: score === null ? null : { taskScore: score, exactMatch: score === 1, answer: null },
  }) as unknown as Trajectory;

test('mean and sample standard deviation are the hand-computed ones', () => {
  assert.is(mean([1, 2, 3, 6]), 3);
  assert.ok(Math.abs(standardDeviation([1, 2, 3, 6]) - Math.sqrt(14 / 3)) < 1e-12);
  assert.equal([mean([]), standardDeviation([]), standardDeviation([4])], [0, 0, 0]);
});

test('figures are means over dialogues with a verdict; the others are counted', () => {
  const { taskScoreInterval, ...metrics } = measureTeam(
    [dialogue([10, 20], 1), dialogue([30, 40, 20], 0.5, 'turn-cap'), dialogue([1000], null)],
    createRng(1),
  );
  assert.equal(metrics, {
    taskScore: 0.75,
    exactMatch: 0.5,
    tokens: 60,
    medianTokens: 30,
    p95Tokens: 90,
    shortestRight: 30,
    agreement: 0.5,
    turns: 2.5,
    n: 2,
    failed: 1,
  });
  assert.equal(taskScoreInterval, [0.5, 1]);
});

test('the bootstrap interval is that of the normal approximation for many values', () => {
  const rng = createRng(3);
  const values = Array.from({ length: 400 }, () => rng.next());
  const [low, high] = bootstrapInterval(values, createRng(1));
  const margin = (1.96 * standardDeviation(values)) / Math.sqrt(values.length);
  assert.ok(Math.abs(low - (mean(values) - margin)) < 0.005);
  assert.ok(Math.abs(high - (mean(values) + margin)) < 0.005);
});

test('the same generator gives the same interval', () => {
  const values = [0, 0.2, 0.4, 1, 1, 0.3];
  assert.equal(bootstrapInterval(values, createRng(5)), bootstrapInterval(values, createRng(5)));
  assert.equal(bootstrapInterval([0.3, 0.3], createRng(5)), [0.3, 0.3]);
});

/** A generator whose integers are given; nothing else of it is used. */
const scripted = (int: (n: number) => number) => ({ int }) as unknown as Rng;

test('the bootstrap interval is the hand-worked one of given draws', () => {
  // Five samples of three draws each from 0, 3 and 30, with the means 21, 0, 12, 3 and 11.
  const draws = [2, 2, 1, 0, 0, 0, 1, 1, 2, 1, 1, 1, 0, 2, 1].values();
  const rng = scripted((n) => {
    assert.is(n, 3);
    return draws.next().value!;
  });
  // Sorted 0, 3, 11, 12, 21: the quantiles 0.25 and 0.75 are the second and the fourth.
  assert.equal(bootstrapInterval([0, 3, 30], rng, { resamples: 5, level: 0.5 }), [3, 12]);
  assert.ok(draws.next().done);
});

test('a bootstrap interval takes the middle 95 % of 1000 samples unless told otherwise', () => {
  // Sample k draws the value k alone, from the last one down: the means are 999, 998 … 0.
  const values = Array.from({ length: 1000 }, (_, value) => value);
  let drawn = 0;
  const rng = scripted(() => 999 - Math.floor(drawn++ / 1000));
  assert.equal(bootstrapInterval(values, rng), [25, 974]);
  assert.is(drawn, 1000 * 1000);
});

test('no dialogue gives figures of zero, and only failed ones are counted', () => {
  const nothing = {
    taskScore: 0,
    taskScoreInterval: [0, 0],
    exactMatch: 0,
    tokens: 0,
    medianTokens: 0,
    p95Tokens: 0,
    shortestRight: null,
    agreement: 0,
    turns: 0,
    n: 0,
  };
  assert.equal(measureTeam([], createRng(1)), { ...nothing, failed: 0 });
  const failed = [dialogue([5], null), dialogue([], null)];
  assert.equal(measureTeam(failed, createRng(1)), { ...nothing, failed: 2 });
});

test('figures that take in one dialogue after the other say how many failed, and why the first did', () => {
  const figures = new TeamFigures();
  assert.equal([figures.dialogues, figures.failed, figures.firstFailure], [0, 0, null]);
  assert.is(figures.summary(), '0 dialogues');
  figures.add(dialogue([3], 1));
  assert.is(figures.summary(), '1 dialogues');
  figures.add(dialogue([3], null, 'failed', 'no GPU'));
  figures.add(dialogue([5], 0.5));
  figures.add(dialogue([3], null, 'failed', 'no disk'));
  assert.equal([figures.dialogues, figures.failed, figures.firstFailure], [4, 2, 'no GPU']);
  assert.is(figures.summary(), '4 dialogues, 2 failed, the first with: no GPU');
  const all = [dialogue([3], 1), dialogue([], null), dialogue([5], 0.5), dialogue([], null)];
  assert.equal(figures.metrics(createRng(9)), measureTeam(all, createRng(9)));
});

test('what the environment said and what private notes took are counted beside the team’s tokens, where there were any', () => {
  const words = (text: string) => text.split(' ').length;
  const figures = new TeamFigures(words);
  const plain = dialogue([3, 4], 1);
  figures.add(plain);
  assert.not('environmentTokens' in figures.metrics(createRng(9)));
  assert.not('noteTokens' in figures.metrics(createRng(9)));
  const [one, two] = plain.turns as [Turn, Turn];
  const noted = { ...one, text: 'a', written: 'b c a', tokenIds: [1, 2, 3, 0], finish: 'stop' as const };
  const cut = { ...two, text: 'a b', written: 'a b c', tokenIds: [1, 2, 3], finish: 'length' as const };
  const observed = [{ text: 'x y' }, { text: 'z', to: ['bob'] }];
  const turns = [{ ...noted, observed }, cut];
  figures.add({ ...plain, opening: [{ text: 'u v w' }], turns });
  figures.add({ ...plain, opening: [{ text: 'u' }], verdict: null });
  const { environmentTokens, noteTokens, tokens } = figures.metrics(createRng(9));
  assert.equal([environmentTokens, noteTokens, tokens], [6 / 2, (2 + 1) / 2, 7]);
  const uncounted = new TeamFigures();
  uncounted.add({ ...plain, turns });
  assert.not('noteTokens' in uncounted.metrics(createRng(9)), 'nothing says how many they are');
});

test('a percentile is the least value that so many do not exceed', () => {
  assert.is(percentile([5, 1, 4, 2, 3], 80), 4);
  assert.is(percentile([5, 1, 4, 2, 3], 81), 5);
  assert.is(percentile([5, 1, 4, 2, 3], 100), 5);
  assert.is(percentile([5, 1, 4, 2, 3], 0.1), 1);
  assert.is(percentile([7], 85), 7);
});

test.run();
