// The tree of a task: every turn of its dialogues, coloured by what it was worth, walked with the arrow keys.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { TreeAnswer, TreeNode } from '../../api.ts';
import { layOut, neighbour } from '../layout.ts';
import { Figure, Line, number, Shown, Text } from '../parts.tsx';
import { href } from '../route.ts';
import { useAnswer } from '../source.ts';
import { Dialogues } from './dialogues.tsx';
import { TurnBody } from './turn.tsx';

/** Of a turn's box and what is between two, in pixels at full size. */
const box = { width: 196, height: 36, across: 34, down: 8 };
const zooms = [0.25, 0.35, 0.5, 0.7, 0.85, 1, 1.25];

export function Tree({ run, tree, node }: { run: string; tree: string; node: string | undefined }) {
  const answer = useAnswer('/api/runs/{run}/trees/{tree}', { run, tree });
  return (
    <Shown answer={answer}>{(value) => <TreeView key={tree} run={run} tree={value} node={node} />}</Shown>
  );
}

function TreeView({ run, tree, node }: { run: string; tree: TreeAnswer; node: string | undefined }) {
  const byId = useMemo(() => new Map(tree.nodes.map((one) => [one.id, one])), [tree]);
  const [selected, setSelected] = useState(node !== undefined && byId.has(node) ? node : tree.root);
  const select = (id: string) => {
    setSelected(id);
    history.replaceState(
      null,
      '',
      href(['run', run, 'tree', tree.root], { node: id === tree.root ? undefined : id }),
    );
  };
  return (
    <>
      <TreeMap run={run} tree={tree} byId={byId} selected={selected} onSelect={select} />
      {selected === tree.root ? (
        <Root run={run} tree={tree} />
      ) : (
        <Chosen run={run} node={selected} onSelect={select} />
      )}
    </>
  );
}

/** Asks for a turn once one stays at it: arrow keys pass many. */
function Chosen({ run, node, onSelect }: { run: string; node: string; onSelect: (id: string) => void }) {
  const [asked, setAsked] = useState(node);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(node), 90);
    return () => clearTimeout(timer);
  }, [node]);
  const answer = useAnswer('/api/runs/{run}/nodes/{node}', { run, node: asked });
  return (
    <section aria-label="The chosen turn" class="below">
      <Shown answer={answer}>
        {(value) => <TurnBody run={run} turn={value} onSelect={onSelect} isBrief />}
      </Shown>
    </section>
  );
}

/** From 0 to 1 where a value lies among those of a tree. */
function scaleOf(nodes: readonly TreeNode[]): (value: number) => number {
  const values = nodes.flatMap(({ value }) => value ?? []);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  // A few dialogues that went wholly wrong must not make all others look alike: ranks, not values.
  const sorted = [...new Set(values)].sort((one, other) => one - other);
  const rank = new Map(sorted.map((value, index) => [value, index / Math.max(1, sorted.length - 1)]));
  return (value) => (high === low ? 0.5 : rank.get(value)!);
}

function TreeMap({
  run,
  tree,
  byId,
  selected,
  onSelect,
}: {
  run: string;
  tree: TreeAnswer;
  byId: ReadonlyMap<string, TreeNode>;
  selected: string;
  onSelect: (id: string) => void;
}) {
  const layout = useMemo(() => layOut(tree.root, tree.nodes), [tree]);
  const scale = useMemo(() => scaleOf(tree.nodes), [tree]);
  const place = useRef<HTMLDivElement>(null);
  const width = layout.depth * (box.width + box.across) - box.across;
  const height = layout.lines * (box.height + box.down) - box.down;
  const [zoom, setZoom] = useState(5);
  const z = zooms[zoom]!;
  const at = (id: string) => {
    const { depth, line } = layout.places.get(id)!;
    return { x: depth * (box.width + box.across), y: line * (box.height + box.down) };
  };
  const turn = (by: number) => setZoom((now) => Math.min(zooms.length - 1, Math.max(0, now + by)));
  const fit = () => {
    const { clientWidth, clientHeight } = place.current!;
    const most = Math.min((clientWidth - 24) / width, (clientHeight - 24) / height);
    setZoom(
      Math.max(
        0,
        zooms.findLastIndex((each) => each <= most),
      ),
    );
  };
  useLayoutEffect(() => {
    const { x, y } = at(selected);
    const view = place.current!;
    const room = { x: view.clientWidth, y: view.clientHeight };
    if (x * z < view.scrollLeft + 20 || (x + box.width) * z > view.scrollLeft + room.x - 20)
      view.scrollLeft = x * z - (room.x - box.width * z) / 2;
    if (y * z < view.scrollTop + 20 || (y + box.height) * z > view.scrollTop + room.y - 20)
      view.scrollTop = y * z - (room.y - box.height * z) / 2;
  });
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Enter' && selected !== tree.root) location.hash = href(['run', run, 'turn', selected]);
    else if (event.key === '+' || event.key === '=') turn(1);
    else if (event.key === '-') turn(-1);
    else if (event.key === '0') fit();
    else if (event.key === 'Home') onSelect(tree.root);
    else if (event.key.startsWith('Arrow')) {
      const next = neighbour(layout, selected, byId.get(selected)?.parent ?? null, event.key);
      if (next !== null) onSelect(next);
    } else return;
    event.preventDefault();
  };
  return (
    <section aria-label="Tree">
      <div class="controls">
        <button type="button" onClick={() => turn(-1)} aria-label="Smaller" disabled={zoom === 0}>
          −
        </button>
        <button
          type="button"
          onClick={() => turn(1)}
          aria-label="Larger"
          disabled={zoom === zooms.length - 1}
        >
          +
        </button>
        <button type="button" onClick={fit}>
          fit
        </button>
        <Legend />
        <span class="faint wide-only">arrow keys walk, Enter opens, + − 0 zoom</span>
      </div>
      <div
        class="map"
        ref={place}
        role="tree"
        tabIndex={0}
        aria-label={`Turns of ${tree.taskId}`}
        aria-activedescendant={domId(selected)}
        onKeyDown={onKeyDown}
      >
        <div class="sized" role="presentation" style={{ width: `${width * z}px`, height: `${height * z}px` }}>
          <div
            class="scaled"
            role="presentation"
            style={{ transform: `scale(${z})`, width: `${width}px`, height: `${height}px` }}
          >
            <svg width={width} height={height} aria-hidden="true">
              {tree.nodes.map(({ id, parent, pair, trained }) => {
                const [from, to] = [at(parent), at(id)];
                const [x1, y1, x2, y2] = [
                  from.x + box.width,
                  from.y + box.height / 2,
                  to.x,
                  to.y + box.height / 2,
                ];
                const bend = box.across / 2;
                return (
                  <path
                    key={id}
                    class={`edge ${pair ?? (trained ? 'trained' : '')}`}
                    d={`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`}
                  />
                );
              })}
            </svg>
            <div
              id={domId(tree.root)}
              class={selected === tree.root ? 'node root selected' : 'node root'}
              role="treeitem"
              aria-level={1}
              aria-selected={selected === tree.root}
              style={boxAt(at(tree.root))}
              onClick={() => onSelect(tree.root)}
            >
              <b>{tree.taskId}</b>
              <small>{tree.dialogues.length} dialogues</small>
            </div>
            {tree.nodes.map((node) => (
              <Node
                key={node.id}
                node={node}
                level={layout.places.get(node.id)!.depth + 1}
                place={at(node.id)}
                shade={node.value === null ? null : scale(node.value)}
                isSelected={selected === node.id}
                onSelect={onSelect}
              />
            ))}
          </div>
        </div>
      </div>
    </section>
  );
}

const Legend = () => (
  <span class="legend">
    <span class="ramp" aria-hidden="true" /> worth less – more · <span aria-hidden="true">▲▼</span> better and
    worse of a pair · <span aria-hidden="true">●</span> trained on
  </span>
);

/** An id as an attribute may have it. */
const domId = (id: string) => `node-${id.replaceAll(/[^\w-]/g, '_')}`;
const boxAt = ({ x, y }: { x: number; y: number }) => ({
  left: `${x}px`,
  top: `${y}px`,
  width: `${box.width}px`,
  height: `${box.height}px`,
});
const marks = { better: '▲', worse: '▼', both: '▲▼' } as const;

function Node({
  node,
  level,
  place,
  shade,
  isSelected,
  onSelect,
}: {
  node: TreeNode;
  level: number;
  place: { x: number; y: number };
  shade: number | null;
  isSelected: boolean;
  onSelect: (id: string) => void;
}) {
  const { id, speaker, text, value, merged, pair, trained, provenance, fork } = node;
  const mark = pair !== null ? marks[pair] : trained ? '●' : '';
  return (
    <div
      id={domId(id)}
      class={isSelected ? 'node selected' : 'node'}
      role="treeitem"
      aria-level={level}
      aria-selected={isSelected}
      style={{ ...boxAt(place), '--shade': shade === null ? undefined : `${Math.round(100 * shade)}%` }}
      data-shaded={shade !== null}
      onClick={() => onSelect(id)}
    >
      <span class="top">
        <b>{speaker}</b>
        {fork !== null && <i>fork {fork}</i>}
        {provenance !== 'sampled' && <i>{provenance}</i>}
        {merged > 0 && <span class="faint">+{merged}</span>}
        <span class="mark">
          <span aria-hidden="true">{mark}</span>
          <span class="only-heard">
            {pair === null ? (trained ? 'trained on' : '') : `${pair} of a pair`}, value
          </span>
        </span>
        <span class="number">{number(value, 2)}</span>
      </span>
      <span class="said">
        <Line value={text} limit={60} />
      </span>
    </div>
  );
}

/** What is shown while no turn is chosen: the task, its dialogues, and what became of its pairs. */
function Root({ run, tree }: { run: string; tree: TreeAnswer }) {
  const { views, dialogues, dropped, pairs, isSearched, value, untold } = tree;
  const kept = pairs.filter(({ reason }) => reason === null).length;
  return (
    <>
      <dl class="figures">
        <Figure name="dialogues" value={dialogues.length} />
        <Figure name="turns" value={tree.nodes.length} />
        {isSearched && <Figure name="value" value={number(value)} />}
        {isSearched && (
          <Figure
            name="pairs kept"
            value={kept}
            note={dropped === null ? 'none made yet' : droppedText(dropped) || 'none dropped'}
          />
        )}
      </dl>
      {untold.map((text) => (
        <p key={text} class="faint">
          {text}
        </p>
      ))}
      <div class="views">
        {Object.entries(views).map(([role, view]) => (
          <section key={role} class="view" aria-label={`What ${role} is told`}>
            <h3>{role} is told</h3>
            <Text value={view} />
          </section>
        ))}
      </div>
      <h2>Dialogues</h2>
      <Dialogues run={run} dialogues={dialogues} />
    </>
  );
}

const droppedNames: Readonly<Record<string, string>> = {
  sameText: 'same text',
  notEligible: 'open case',
  belowFilter: 'below the threshold',
  gapTooSmall: 'gap too small',
  worse: 'beyond the share',
};

const droppedText = (dropped: Readonly<Record<string, number>>) =>
  Object.entries(dropped)
    .filter(([, many]) => many > 0)
    .map(([reason, many]) => `${many} ${droppedNames[reason] ?? reason}`)
    .join(', ');
