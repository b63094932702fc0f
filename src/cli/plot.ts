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
}

const [width, height] = [640, 380];
const area = { left: 62, right: width - 168, top: 40, bottom: height - 52 };
/** Told apart by colour-blind readers too (Okabe and Ito, 2008); the last two are greys. */
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#808080', '#b0b0b0'];
const ink = '#777777';

/** The plot as an SVG document. Values that are not finite are left out; both axes begin at 0. */
export function plotSvg({ title, x, y, series, marks = [], names }: Plot): string {
  const finite = series.map((one) => ({
    ...one,
    points: one.points.filter((point) => point.every(Number.isFinite)),
  }));
  const points = finite.flatMap((one) => one.points);
  const most = (axis: 0 | 1) =>
    Math.max(
      1e-9,
      ...points.map((point) => point[axis]),
      ...marks.flatMap((mark) => (mark.axis === (axis === 0 ? 'x' : 'y') ? mark.at : [])),
    );
  const [stepX, stepY] = [tickStep(names === undefined ? most(0) : names.length - 1), tickStep(most(1))];
  const endX = names === undefined ? Math.ceil(most(0) / stepX) * stepX : names.length - 1;
  const endY = Math.ceil(most(1) / stepY) * stepY;
  const toX = (value: number) => round(area.left + (value / endX) * (area.right - area.left));
  const toY = (value: number) => round(area.bottom - (value / endY) * (area.bottom - area.top));
  const ticksX = names?.map((name, value) => [value, name] as const) ?? ticks(endX, stepX);
  const parts = [
    text(area.left, 20, title, 'font-weight="600" font-size="14"'),
    ...ticks(endY, stepY).flatMap(([value, label]) => [
      line(area.left, toY(value), area.right, toY(value), 'stroke-opacity="0.25"'),
      text(area.left - 8, toY(value) + 4, label, 'text-anchor="end"'),
    ]),
    ...ticksX.map(([value, label]) => text(toX(value), area.bottom + 18, label, 'text-anchor="middle"')),
    line(area.left, area.bottom, area.right, area.bottom, ''),
    text((area.left + area.right) / 2, height - 12, x, 'text-anchor="middle"'),
    text(-(area.top + area.bottom) / 2, 16, y, 'text-anchor="middle" transform="rotate(-90)"'),
    ...marks.flatMap(({ axis, at, name }) =>
      axis === 'x'
        ? [
            line(toX(at), area.top, toX(at), area.bottom, dashes),
            text(toX(at) + 4, area.top + 10, name, 'font-size="10"'),
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

const dashes = 'stroke-dasharray="5 4" stroke-opacity="0.8"';

const round = (value: number) => Math.round(10 * value) / 10;

/** 1, 2 or 5 times a power of ten, so that there are four to ten ticks up to `most`. */
function tickStep(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most));
  const leading = most / power;
  return power * (leading > 5 ? 1 : leading > 2 ? 0.5 : 0.2);
}

function ticks(end: number, step: number): (readonly [value: number, label: string])[] {
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: Math.round(end / step) + 1 }, (_, index) => [
    index * step,
    (index * step).toFixed(digits),
  ]);
}

const line = (x1: number, y1: number, x2: number, y2: number, style: string) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${ink}" ${style}/>`;

const text = (x: number, y: number, words: string, style: string) =>
  `<text x="${round(x)}" y="${round(y)}" ${style}>${escaped(words)}</text>`;

const escaped = (words: string) =>
  words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
