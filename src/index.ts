// What a scenario file imports from 'optima-actors'. Light on purpose: it is loaded and type-checked with every
// scenario. Runs from code are in src/run/index.ts.
// A project whose own `types` leave out Node's needs them for the declarations.
/// <reference types="node" preserve="true" />
export * from './scenario/index.ts';
