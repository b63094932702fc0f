// Line plots as SVG, for documents: axes, a few series, a legend. Colours read on light and dark ground.

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Points alone, without a line through them. */
  readonly dots?: boolean;
}

export interface Plot {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly series: readonly Series[];
  /** Lines across the plot: where a value of x or y is to be compared with. */
  readonly marks?: readonly { readonly axis: 'x' | 'y'; readonly at: number; readonly name: string }[];
  /** Names of the values 0, 1, 2 … of x, in place of numbers. */
  readonly names?: readonly string[];
  /** Axes of powers of ten; every value on one must be above 0. The others begin at 0. */
  readonly logarithmic?: readonly ('x' | 'y')[];
}

const [width, height] = [720, 400];
const area = { left: 62, right: width - 230, top: 40, bottom: height - 52 };
/** Told apart by colour-blind readers too (Okabe and Ito, 2008); the last two are greys. */
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#808080', '#b0b0b0'];
const ink = '#777777';

/** The plot as an SVG document. Values that are not finite are left out. */
export function plotSvg({ title, x, y, series, marks = [], names, logarithmic = [] }: Plot): string {
  const finite = series.map((one) => ({
    ...one,
    points: one.points.filter((point) => point.every(Number.isFinite)),
  }));
  const axisOf = (axis: 'x' | 'y', from: number, to: number): Axis => {
    const values = [
      ...finite.flatMap((one) => one.points.map((point) => point[axis === 'x' ? 0 : 1])),
      ...marks.flatMap((mark) => (mark.axis === axis ? mark.at : [])),
    ];
    return (logarithmic.includes(axis) ? logarithmicAxis : linearAxis)(values, from, to);
  };
  const across =
    names === undefined ? axisOf('x', area.left, area.right) : namedAxis(names, area.left, area.right);
  const up = axisOf('y', area.bottom, area.top);
  const [toX, toY] = [across.place, up.place];
  const parts = [
    text(area.left, 20, title, 'font-weight="600" font-size="14"'),
    ...up.ticks.flatMap(([value, label]) => [
      line(area.left, toY(value), area.right, toY(value), 'stroke-opacity="0.25"'),
      text(area.left - 8, toY(value) + 4, label, 'text-anchor="end"'),
    ]),
    ...across.ticks.map(([value, label]) =>
      text(toX(value), area.bottom + 18, label, 'text-anchor="middle"'),
    ),
    line(area.left, area.bottom, area.right, area.bottom, ''),
    text((area.left + area.right) / 2, height - 12, x, 'text-anchor="middle"'),
    text(-(area.top + area.bottom) / 2, 16, y, 'text-anchor="middle" transform="rotate(-90)"'),
    ...marks.flatMap(({ axis, at, name }) =>
      axis === 'x'
        ? [
            line(toX(at), area.top, toX(at), area.bottom, dashes),
            text(toX(at) + 4, area.bottom - 8, name, 'font-size="10"'),
          ]
        : [
            line(area.left, toY(at), area.right, toY(at), dashes),
            text(area.right - 4, toY(at) - 4, name, 'text-anchor="end" font-size="10"'),
          ],
    ),
    ...finite.flatMap(({ name, points: own, dots }, index) => {
      const colour = colours[index % colours.length]!;
      const path = own.map(([px, py]) => `${toX(px)},${toY(py)}`).join(' ');
      return [
        ...(dots ? [] : [`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`]),
        ...own.map(([px, py]) => `<circle cx="${toX(px)}" cy="${toY(py)}" r="3.5" fill="${colour}"/>`),
        `<circle cx="${area.right + 18}" cy="${area.top + 18 * index + 6}" r="4" fill="${colour}"/>`,
        text(area.right + 28, area.top + 18 * index + 10, name, ''),
      ];
    }),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="${ink}" stroke="none">`,
    `<title>${escaped(title)}</title>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/** Where the values of an axis stand, and which of them are written beside it. */
interface Axis {
  place(value: number): number;
  readonly ticks: readonly (readonly [value: number, label: string])[];
}

/** From 0 to a tick at or above the greatest value. */
function linearAxis(values: readonly number[], from: number, to: number): Axis {
  const most = Math.max(1e-9, ...values);
  const step = tickStep(most);
  const count = Math.ceil(most / step - 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const ticks = Array.from({ length: count + 1 }, (_, index) => index * step);
  return {
    place: (value) => round(from + (value / (count * step)) * (to - from)),
    ticks: ticks.map((tick) => [tick, tick.toFixed(digits)]),
  };
}

/** From a tick at or below the least value to one at or above the greatest; ticks are 1, 2 and 5 times powers of ten. */
function logarithmicAxis(values: readonly number[], from: number, to: number): Axis {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const powers = Array.from({ length: 41 }, (_, index) => 10 ** (index - 20));
  const all = powers.flatMap((power) => [power, 2 * power, 5 * power]);
  const ticks = all.slice(
    all.findLastIndex((tick) => tick <= least),
    all.findIndex((tick) => tick >= most) + 1,
  );
  const [low, high] = [Math.log(ticks[0]!), Math.log(ticks.at(-1)!)];
  return {
    place: (value) => round(from + ((Math.log(value) - low) / (high - low || 1)) * (to - from)),
    ticks: ticks.map((tick) => [tick, String(Number(tick.toPrecision(1)))]),
  };
}

function namedAxis(names: readonly string[], from: number, to: number): Axis {
  const last = Math.max(1, names.length - 1);
  return {
    place: (value) => round(from + (value / last) * (to - from)),
    ticks: names.map((name, value) => [value, name]),
  };
}

const dashes = 'stroke-dasharray="5 4" stroke-opacity="0.8"';

const round = (value: number) => Math.round(10 * value) / 10;

/** 1, 2 or 5 times a power of ten, so that there are four to ten ticks up to `most`. */
function tickStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most));
  const leading = most / power;
  return power * (leading > 5 ? 1 : leading > 2 ? 0.5 : 0.2);
}

const line = (x1: number, y1: number, x2: number, y2: number, style: string) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${ink}" ${style}/>`;

const text = (x: number, y: number, words: string, style: string) =>
  `<text x="${round(x)}" y="${round(y)}" ${style}>${escaped(words)}</text>`;

const escaped = (words: string) =>
  words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
