// Types of tfjs.cjs: all that TF.js exports, as values and as types, under one name.
import tf = require('@tensorflow/tfjs');
export = tf;
