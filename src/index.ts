// What a scenario file imports from 'optima-actors'. Light on purpose: it is loaded and type-checked with every
// scenario. Runs from code are in src/run/index.ts.
export * from './scenario/index.ts';
