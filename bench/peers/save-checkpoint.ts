// Writes the decoder that the benchmarks measure as a Hugging Face folder, for the peers to load.
// node --import tsx bench/peers/save-checkpoint.ts <folder>
import { createRng } from '../../src/domain/rng.ts';
import { startEngine } from '../../src/tensor/index.ts';
import { createReferencePolicy } from '../shared.ts';

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new RangeError('Say where: save-checkpoint.ts <folder>');
await startEngine();
const policy = createReferencePolicy(createRng(1));
console.log(`${folder}: policy ${await policy.save(folder)}`);
