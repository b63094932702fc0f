// Hosts of policies: where they generate, score and have gradients computed, in worker threads or on this one.
export type { PolicyHost, PolicySource } from './host.ts';
export { inProcessHost } from './in-process.ts';
export { Workers } from './workers.ts';
