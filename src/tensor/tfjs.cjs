// TF.js by `require`. Node searches what an `import` of CommonJS names for its exports: in TF.js' megabytes that takes half a
// second, in the main thread and in each worker.
const tf = require('@tensorflow/tfjs');
module.exports = tf;
