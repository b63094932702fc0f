#!/usr/bin/env node
// The launcher: hands over to src/cli/main.ts, or what it was compiled to. package.json says which is there.
if (import.meta.resolve('#cli').endsWith('.ts')) (await import('tsx/esm/api')).register();
await import('#cli');
