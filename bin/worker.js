// The launcher of a worker thread: hands over to src/workers/entry.ts, or what it was compiled to.
if (import.meta.resolve('#worker').endsWith('.ts')) (await import('tsx/esm/api')).register();
await import('#worker');
