#!/usr/bin/env node
// The launcher: hands over to src/cli/main.ts, or what it was compiled to. package.json says which is there.
import os from 'node:os';

// Whoever only reads runs takes what others leave of the processor; a training goes first, also while this one starts.
const readers = ['doctor', 'export', 'pairs', 'replay', 'rerank', 'results', 'runs', 'show', 'tree', 'view'];
if (readers.includes(process.argv[2])) os.setPriority(os.constants.priority.PRIORITY_LOW);
if (import.meta.resolve('#cli').endsWith('.ts')) (await import('tsx/esm/api')).register();
await import('#cli');
