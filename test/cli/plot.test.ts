import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { plotSvg } from '../../src/cli/plot.ts';

const positions = (svg: string) =>
  [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)" r="3.5"/g)].map(([, x, y]) => [Number(x), Number(y)]);
const plot = (points: readonly (readonly [number, number])[], change = {}) =>
  plotSvg({ title: 'a < b', x: 'x', y: 'y', series: [{ name: 'one', points }], ...change });

test('on an axis of powers of ten equal ratios are equally far apart, between ticks of 1, 2 and 5', () => {
  const points = [
    [30, 1],
    [90, 1],
    [270, 1],
  ] as const;
  const svg = plot(points, { logarithmic: ['x'] });
  const [first, second, third] = positions(svg).map(([x]) => x!) as [number, number, number];
  assert.ok(Math.abs(second - first - (third - second)) <= 0.2);
  const labels = [...svg.matchAll(/text-anchor="middle">(\d+)</g)].map(([, label]) => label);
  assert.equal(labels, ['20', '50', '100', '200', '500']);
});

test('both axes begin at 0, and points stand in proportion', () => {
  const [origin, middle, end] = positions(
    plot([
      [0, 0],
      [50, 0.5],
      [100, 1],
    ]),
  ) as [number[], number[], number[]];
  for (const axis of [0, 1]) assert.ok(Math.abs(origin[axis]! + end[axis]! - 2 * middle[axis]!) <= 0.2);
  assert.ok(origin[0]! < end[0]! && origin[1]! > end[1]!);
});

test('an axis ends on a tick at or above the greatest value, marks included', () => {
  const labels = (svg: string) => [...svg.matchAll(/text-anchor="end">([\d.]+)</g)].map(([, label]) => label);
  assert.equal(labels(plot([[1, 0.93]])), [
    '0.0',
    '0.1',
    '0.2',
    '0.3',
    '0.4',
    '0.5',
    '0.6',
    '0.7',
    '0.8',
    '0.9',
    '1.0',
  ]);
  assert.equal(labels(plot([[1, 0.4]], { marks: [{ axis: 'y', at: 1.9, name: '' }] })), [
    '0.0',
    '0.2',
    '0.4',
    '0.6',
    '0.8',
    '1.0',
    '1.2',
    '1.4',
    '1.6',
    '1.8',
    '2.0',
  ]);
});

test('values that are not finite are left out, and text is escaped', () => {
  const svg = plot([
    [0, Number.NaN],
    [1, 2],
  ]);
  assert.is(positions(svg).length, 1);
  assert.not.match(svg, /NaN|Infinity/);
  assert.match(svg, '<title>a &lt; b</title>');
});

test('a series of dots has no line through it', () => {
  const points = [
    [1, 1],
    [2, 2],
  ] as const;
  assert.match(plot(points), '<polyline');
  assert.not.match(plot(points, { series: [{ name: 'one', points, dots: true }] }), '<polyline');
});

test('values of x may have names', () => {
  const svg = plot([[1, 1]], { names: ['base', '0'] });
  assert.match(svg, '>base</text>');
});

test.run();
