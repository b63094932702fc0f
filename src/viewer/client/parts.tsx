// What the pages are made of: texts, figures, tables, curves.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Failure } from '../api.ts';
import { parseRoute } from './route.ts';
import { type Answer, isStatic, watchOpening } from './source.ts';
import { beginningOf, lineOf, piecesOf } from './visible.ts';

/** Characters that are shown before one asks for the rest. */
const shownCharacters = 4000;

/** A text of others, whole: hidden characters spelt out, never interpreted, its direction kept to itself. */
export function Text({ value, limit = shownCharacters }: { value: string; limit?: number }) {
  const [isWhole, setWhole] = useState(false);
  const shown = isWhole ? value : beginningOf(value, limit);
  return (
    <bdi class="text">
      {piecesOf(shown).map((piece, index) =>
        piece.kind === 'text' ? (
          piece.text
        ) : (
          <span key={index} class="hidden-character" title={`U+${piece.code.toUpperCase()} ${piece.name}`}>
            ⟨{piece.code.toUpperCase()}⟩
          </span>
        ),
      )}
      {value === '' && <span class="faint">(empty)</span>}
      {shown.length < value.length && (
        <>
          {'… '}
          <button type="button" class="quiet" onClick={() => setWhole(true)}>
            show all {count(value.length)} characters
          </button>
        </>
      )}
    </bdi>
  );
}

/** A text of others as one line, cut short by its place. */
export const Line = ({ value, limit = 300 }: { value: string; limit?: number }) => (
  <bdi class="line">{lineOf(beginningOf(value, limit)) || '(empty)'}</bdi>
);

/** A number for people: so many decimals; a dash where there is none. */
export const number = (value: number | null | undefined, decimals = 3): string =>
  value === null || value === undefined || !Number.isFinite(value)
    ? '–'
    : value.toFixed(decimals).replace(/^-/, '−');

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
export const count = (value: number): string => grouped.format(value);

export function duration(seconds: number): string {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A moment as the reader's clock shows it. */
export const moment = (iso: string | null): string =>
  iso === null ? '–' : new Date(iso).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const Problem = ({ failure }: { failure: Failure }) => (
  <div class="problem" role="alert">
    <p>
      <Text value={failure.message} />
    </p>
    {failure.hint !== undefined && (
      <p class="faint">
        <Text value={failure.hint} />
      </p>
    )}
  </div>
);

/** That an answer is coming; while the run of the address is opened for the first time, how far that is. */
export function Reading() {
  const [percent, setPercent] = useState<number | null>(null);
  useEffect(() => {
    const [, run] = parseRoute(location.hash).path;
    return isStatic || run === undefined ? undefined : watchOpening(run, setPercent);
  }, []);
  return (
    <p class="faint loading" role="status">
      {percent === null ? 'reading …' : `reading the log for the first time: ${percent} %`}
    </p>
  );
}

/** What is shown of an answer: it, what went wrong, or that it is coming. */
export function Shown<Value>({
  answer,
  children,
}: {
  answer: Answer<Value>;
  children: (value: Value) => ComponentChildren;
}) {
  const { value, failure, state } = answer;
  return (
    <>
      {failure !== null && <Problem failure={failure} />}
      {value === null && state === 'loading' && <Reading />}
      {value !== null && children(value)}
    </>
  );
}

/** A figure with its name. */
export const Figure = ({
  name,
  value,
  note,
}: {
  name: string;
  value: ComponentChildren;
  note?: ComponentChildren;
}) => (
  <div class="figure">
    <dt>{name}</dt>
    <dd>
      {value}
      {note !== undefined && <small>{note}</small>}
    </dd>
  </div>
);

/** A table that is wider than a phone scrolls within its place. The heads of columns of numbers begin with `#`. */
export const Table = ({
  caption,
  head,
  children,
}: {
  caption: string;
  head: readonly string[];
  children: ComponentChildren;
}) => (
  <section class="wide" aria-label={caption} {...scrollable}>
    <table>
      <thead>
        <tr>
          {head.map((name) => (
            <th key={name} scope="col" class={name.startsWith('#') ? 'number' : ''}>
              {name.replace(/^#/, '')}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>{children}</tbody>
    </table>
  </section>
);

/** What scrolls can be scrolled by keyboard. */
export const scrollable = { tabIndex: 0 };
