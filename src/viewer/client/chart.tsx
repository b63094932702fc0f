// A statechart as boxes in a row and ways between them: above those that lead on, below those that lead back or to itself. Each
// way has a height of its own, so that no two labels meet.
import type { Chart, ChartEdge } from '../api.ts';

const box = { width: 104, height: 30, gap: 96 };
const [labelHeight, laneHeight] = [13, 10];

/** Ways from one state to the same other one: one line, with a label for each. */
interface Bundle {
  readonly from: number;
  readonly to: number;
  readonly labels: readonly string[];
}

const labelOf = ({ event, guard, actions }: ChartEdge): string =>
  `${event}${guard === null ? '' : ` [${guard}]`}${actions.length === 0 ? '' : ` / ${actions.join(', ')}`}`;

function bundlesOf({ states, edges }: Chart): Bundle[] {
  const bundles = new Map<string, { from: number; to: number; labels: string[] }>();
  const at = (name: string) => states.findIndex((state) => state.name === name);
  for (const edge of edges) {
    const key = `${edge.from} ${edge.to}`;
    const known = bundles.get(key) ?? { from: at(edge.from), to: at(edge.to), labels: [] };
    known.labels.push(labelOf(edge));
    bundles.set(key, known);
  }
  // Short ways lie inside of long ones.
  return [...bundles.values()].sort(
    (one, other) => Math.abs(one.to - one.from) - Math.abs(other.to - other.from),
  );
}

export function ChartView({ chart, current }: { chart: Chart; current: readonly string[] }) {
  const { id, states } = chart;
  const bundles = bundlesOf(chart);
  const above = bundles.filter(({ from, to }) => to > from);
  const below = bundles.filter(({ from, to }) => to <= from);
  const heightOf = (lanes: readonly Bundle[]) =>
    lanes.reduce((sum, { labels }) => sum + labels.length * labelHeight + laneHeight, 0);
  const top = heightOf(above) + 4;
  const step = box.width + box.gap;
  // Labels of the outer ways may reach beyond the boxes.
  const reach = bundles.map(({ from, to, labels }) => {
    const half = (Math.max(...labels.map((label) => label.length)) * 5.9) / 2;
    const middle = ((from + to) / 2) * step + box.width / 2;
    return [middle - half, middle + half] as const;
  });
  const margin = 8 - Math.min(0, ...reach.map(([start]) => start));
  const end = Math.max(states.length * step - box.gap, ...reach.map(([, last]) => last));
  const width = margin + end + 8;
  const height = top + box.height + heightOf(below) + 8;
  const left = (index: number) => margin + index * step;
  const said = states.map(({ name }) => (current.includes(name) ? `${name} (now)` : name)).join(', ');
  let [up, down] = [top, top + box.height];
  const ways = [...above, ...below].map(({ from, to, labels }, index) => {
    const isUp = index < above.length;
    const room = labels.length * labelHeight + laneHeight;
    if (isUp) up -= room;
    const line = isUp ? up + labels.length * labelHeight + 4 : down + laneHeight;
    const textAt = isUp ? up + labelHeight - 2 : down + laneHeight + labelHeight - 1;
    if (!isUp) down += room;
    const edge = isUp ? top : top + box.height;
    // Each way leaves and enters the boxes at a place of its own.
    const shift = 12 + (isUp ? index * 14 : 0);
    const [x1, x2] =
      from === to
        ? [left(from) + 30, left(to) + box.width - 30]
        : isUp
          ? [left(from) + box.width - shift, left(to) + shift]
          : [left(from) + 24, left(to) + box.width - 24];
    const path = `M${x1} ${edge}V${line}H${x2}V${edge + (isUp ? -1 : 1)}`;
    return { key: `${from} ${to}`, path, middle: (x1 + x2) / 2, textAt, labels };
  });
  return (
    <figure class="chart">
      <figcaption>
        <b>{id}</b> <span class="faint">{current.length > 0 && current.join(', ')}</span>
      </figcaption>
      <section class="wide plain" aria-label={`Statechart of the ${id}`} tabIndex={0}>
        <svg
          width={width}
          height={height}
          viewBox={`0 0 ${width} ${height}`}
          role="img"
          aria-label={`States: ${said}`}
        >
          <defs>
            <marker
              id={`arrow-${id}`}
              viewBox="0 0 8 8"
              refX="7"
              refY="4"
              markerWidth="7"
              markerHeight="7"
              orient="auto"
            >
              <path d="M0 0L8 4L0 8z" class="solid" />
            </marker>
          </defs>
          {ways.map(({ key, path }) => (
            <path key={key} class="way-between" d={path} marker-end={`url(#arrow-${id})`} />
          ))}
          {ways.flatMap(({ key, middle, textAt, labels }) =>
            labels.map((label, row) => (
              <text
                key={`${key} ${label}`}
                class="way-label"
                x={middle}
                y={textAt + row * labelHeight}
                text-anchor="middle"
              >
                {label}
              </text>
            )),
          )}
          {states.map(({ name, isFirst, isFinal }, index) => (
            <g key={name} class={current.includes(name) ? 'box now' : 'box'}>
              <rect x={left(index)} y={top} width={box.width} height={box.height} rx="6" />
              {isFinal && (
                <rect
                  x={left(index) + 3}
                  y={top + 3}
                  width={box.width - 6}
                  height={box.height - 6}
                  rx="4"
                  class="inner"
                />
              )}
              {isFirst && <circle cx={left(index) + 9} cy={top + box.height / 2} r="3" class="solid" />}
              <text x={left(index) + box.width / 2} y={top + box.height / 2 + 4} text-anchor="middle">
                {name}
              </text>
            </g>
          ))}
        </svg>
      </section>
    </figure>
  );
}
