// Preloaded into an `optima` by `node --import`: ends the process at an exact place of its run, which no timer could
// hit. The place comes as JSON in KILL_AT: the log, a phase, and what the process has just done in it.
import fs from 'node:fs';
import path from 'node:path';

const { log, phase, lines, halfLine = false, renamed = false, signal } = JSON.parse(process.env.KILL_AT);
const { writeSync, renameSync } = fs;

/** Lines of the phase behind its first one; -1 before it has begun. */
function linesInPhase() {
  const text = fs.existsSync(log) ? fs.readFileSync(log, 'utf8') : '';
  const [, rest] = text.split(`"type":"phase.started","phase":"${phase}"`);
  return rest === undefined ? -1 : rest.split('\n').length - 2;
}

const end = () => process.kill(process.pid, signal);

if (renamed) {
  fs.renameSync = (from, to) => {
    renameSync(from, to);
    if (path.basename(path.dirname(to)) === 'checkpoints' && linesInPhase() >= 0) end();
  };
} else {
  fs.writeSync = (descriptor, bytes, ...rest) => {
    const isDue = linesInPhase() === (halfLine ? lines : lines - 1);
    if (!isDue || !Buffer.from(bytes).includes('"seq":')) return writeSync(descriptor, bytes, ...rest);
    if (halfLine) writeSync(descriptor, bytes.subarray(0, bytes.length >> 1));
    else writeSync(descriptor, bytes);
    end();
    return bytes.length;
  };
}
