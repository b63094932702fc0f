#!/usr/bin/env node
// The launcher: lets Node read TypeScript, then hands over to src/cli/main.ts.
import { register } from 'tsx/esm/api';

register();
await import('../src/cli/main.ts');
