// The written faults of faults.txt, and where in src/ they stand.
import fs from 'node:fs';

/** What stands in the source, and what would stand there instead. */
export function writtenFaults(): [original: string, replacement: string][] {
  const text = fs.readFileSync(new URL('faults.txt', import.meta.url), 'utf8');
  const blocks = text.split(/\n{2,}/).filter((block) => block.startsWith('- '));
  return blocks.map((block) => {
    const linesWith = (sign: string) =>
      block
        .split('\n')
        .filter((line) => line.startsWith(sign))
        .map((line) => line.slice(2))
        .join('\n');
    return [linesWith('-'), linesWith('+')];
  });
}

/** Where a fault stands in the texts of files; throws unless it is exactly one place. */
export function placeOf(original: string, texts: ReadonlyMap<string, string>) {
  const places = [...texts].flatMap(([file, text]) => {
    const start = text.indexOf(original);
    return start < 0 ? [] : [{ file, text, start, again: text.indexOf(original, start + 1) >= 0 }];
  });
  if (places.length === 1 && !places[0]!.again) return places[0]!;
  throw new Error(`faults.txt: ${JSON.stringify(original)} does not stand in exactly one place of src/.`);
}
