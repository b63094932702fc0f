// Texts of others, shown as what they are: characters that a reader would not see, or that turn others round, are spelt out.

/** A piece of a text: as it is, or a character that is shown by its number. */
export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'hidden'; readonly code: string; readonly name: string };

/** Control, format, private and unassigned characters but for those that break a line and joiners of letters. */
const hidden = /(?![\n\t\u200c\u200d])[\p{C}\u2028\u2029\u115f\u1160\u3164\uffa0]/gu;

/** What some of them do, for who does not know the number. */
const names: Readonly<Record<string, string>> = {
  '0': 'null',
  '7': 'bell',
  '8': 'backspace',
  d: 'carriage return',
  '1b': 'escape',
  '7f': 'delete',
  ad: 'soft hyphen',
  '200b': 'zero-width space',
  '200e': 'left-to-right mark',
  '200f': 'right-to-left mark',
  '202a': 'left-to-right embedding',
  '202b': 'right-to-left embedding',
  '202c': 'end of embedding',
  '202d': 'left-to-right override',
  '202e': 'right-to-left override',
  '2066': 'left-to-right isolate',
  '2067': 'right-to-left isolate',
  '2068': 'isolate',
  '2069': 'end of isolate',
  feff: 'byte order mark',
};

/** A text in pieces, in order. */
export function piecesOf(text: string): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  for (const match of text.matchAll(hidden)) {
    if (match.index > from) pieces.push({ kind: 'text', text: text.slice(from, match.index) });
    const code = match[0].codePointAt(0)!.toString(16);
    pieces.push({ kind: 'hidden', code, name: names[code] ?? 'invisible character' });
    from = match.index + match[0].length;
  }
  if (from < text.length) pieces.push({ kind: 'text', text: text.slice(from) });
  return pieces;
}

/** The beginning of a text, at most `length` characters (UTF-16), none of them halved. */
export function beginningOf(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = /[\ud800-\udbff]/.test(text[length - 1]!) ? length - 1 : length;
  return text.slice(0, end);
}

/** As one line for a label: what is hidden spelt out, lines joined. */
export const lineOf = (text: string): string =>
  piecesOf(text.replaceAll(/\s*[\n\t]\s*/g, ' '))
    .map((piece) => (piece.kind === 'text' ? piece.text : `⟨${piece.code.toUpperCase()}⟩`))
    .join('');
