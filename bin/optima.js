#!/usr/bin/env node
// The launcher: hands over to src/cli/main.ts, or what it was compiled to. package.json says which is there.
import fs from 'node:fs';
import os from 'node:os';

// Whoever only reads runs takes what others leave of the processor; a training goes first, also while this one starts.
const readers = ['doctor', 'export', 'pairs', 'replay', 'rerank', 'results', 'runs', 'show', 'tree', 'view'];
if (readers.includes(process.argv[2])) {
  // On Linux each thread has a priority of its own, and those that compile and collect garbage are there already.
  const threads = fs.existsSync('/proc/self/task') ? fs.readdirSync('/proc/self/task') : [process.pid];
  for (const thread of threads) {
    try {
      os.setPriority(Number(thread), os.constants.priority.PRIORITY_LOW);
    } catch {
      // It has ended meanwhile, or the system keeps priorities to itself: it reads all the same.
    }
  }
}
if (import.meta.resolve('#cli').endsWith('.ts')) (await import('tsx/esm/api')).register();
const { runCommandLine } = await import('#cli');
await runCommandLine(process.argv.slice(2));
