// Types of tfjs.cjs: all that TF.js' core exports, as values and as types, under one name.
import tf = require('@tensorflow/tfjs-core');
export = tf;
