// TF.js by `require`. Node searches what an `import` of CommonJS names for its exports: in TF.js' megabytes that takes half a
// second, in the main thread and in each worker. Its source maps, which tsx makes Node read, take a fifth of a second more.
const mapped = process.sourceMapsEnabled;
process.setSourceMapsEnabled(false);
const tf = require('@tensorflow/tfjs');
process.setSourceMapsEnabled(mapped);
module.exports = tf;
