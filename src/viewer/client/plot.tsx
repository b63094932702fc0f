// A small line plot: a few points or a few hundred, an axis of round numbers, a text that says what it shows.

export interface PlotPoint {
  readonly x: number;
  readonly y: number;
  /** What is said of it. */
  readonly name: string;
  /** The bounds of an interval around `y`. */
  readonly interval?: readonly [number, number] | null;
  /** Of another kind than the others: drawn as a ring, and not on the line. */
  readonly isApart?: boolean;
}

const [width, height] = [360, 168];
const area = { left: 44, right: width - 10, top: 12, bottom: height - 24 };

/** A step of 1, 2 or 5 times a power of ten, so that there are three to six ticks in `range`. */
function tickStep(range: number): number {
  const power = 10 ** Math.floor(Math.log10(range || 1));
  const leading = range / power;
  return power * (leading > 5 ? 2 : leading > 2.5 ? 1 : leading > 1.2 ? 0.5 : 0.2);
}

/** Ticks from at or below the least value to at or above the greatest. */
function ticksOf(values: readonly number[]): number[] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const step = tickStep(most - least || Math.abs(most) || 1);
  const first = Math.floor(least / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(most / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

export function Plot({
  title,
  points,
  labels = [],
  decimals,
}: {
  title: string;
  points: readonly PlotPoint[];
  /** What stands below the axis, by x. */
  labels?: readonly (readonly [x: number, label: string])[];
  decimals: number;
}) {
  const shown = points.filter(({ y }) => Number.isFinite(y));
  if (shown.length === 0) return null;
  const ticks = ticksOf(shown.flatMap(({ y, interval }) => [y, ...(interval ?? [])]));
  const digits = Math.max(0, -Math.floor(Math.log10(ticks[1]! - ticks[0]!) + 1e-9));
  const [low, high] = [ticks[0]!, ticks.at(-1)!];
  const xs = shown.map(({ x }) => x);
  const [from, to] = [Math.min(...xs), Math.max(...xs)];
  // Points stand within the area, so that their labels do too.
  const inset = labels.length > 0 ? 24 : 2;
  const place = (x: number) =>
    from === to
      ? (area.left + area.right) / 2
      : area.left + inset + ((x - from) / (to - from)) * (area.right - area.left - 2 * inset);
  const rise = (y: number) => area.bottom - ((y - low) / (high - low)) * (area.bottom - area.top);
  const line = shown.filter(({ isApart }) => !isApart);
  const [first, last] = [shown[0]!, shown.at(-1)!];
  const said = `${title}: from ${first.y.toFixed(decimals)} (${first.name}) to ${last.y.toFixed(decimals)} (${last.name})`;
  return (
    <figure class="plot">
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={said}>
        {ticks.map((tick) => (
          <g key={tick}>
            <line class="grid" x1={area.left} x2={area.right} y1={rise(tick)} y2={rise(tick)} />
            <text class="tick" x={area.left - 6} y={rise(tick) + 3.5} text-anchor="end">
              {tick.toFixed(digits).replace(/^-(?=0?\.?0*$)/, '')}
            </text>
          </g>
        ))}
        {labels.map(([x, label]) => (
          <text key={x} class="tick" x={place(x)} y={height - 8} text-anchor="middle">
            {label}
          </text>
        ))}
        <polyline
          class="curve apart"
          points={shown
            .filter(({ isApart }) => isApart)
            .map(({ x, y }) => `${place(x)},${rise(y)}`)
            .join(' ')}
        />
        <polyline class="curve" points={line.map(({ x, y }) => `${place(x)},${rise(y)}`).join(' ')} />
        {shown.length <= 40 &&
          shown.map(({ x, y, name, interval, isApart }) => (
            <g key={x}>
              <title>{`${name}: ${y.toFixed(decimals)}`}</title>
              {interval && (
                <line
                  class="interval"
                  x1={place(x)}
                  x2={place(x)}
                  y1={rise(interval[0])}
                  y2={rise(interval[1])}
                />
              )}
              <circle class={isApart ? 'mark apart' : 'mark'} cx={place(x)} cy={rise(y)} r="3.2" />
            </g>
          ))}
      </svg>
    </figure>
  );
}
