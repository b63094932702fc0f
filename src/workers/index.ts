export type { PolicySource } from './protocol.ts';
export { Workers } from './workers.ts';
