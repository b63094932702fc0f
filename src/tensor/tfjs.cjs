// TF.js by `require`: its core, and its backend in plain JavaScript. Node searches what an `import` of CommonJS names for its
// exports: in TF.js' megabyte that takes time, in the main thread and in each worker. So do its source maps, which tsx
// makes Node read.
const mapped = process.sourceMapsEnabled;
process.setSourceMapsEnabled(false);
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
process.setSourceMapsEnabled(mapped);
module.exports = tf;
