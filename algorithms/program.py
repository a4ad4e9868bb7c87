"""How TensorFlow programs are traced: without AutoGraph, which would read and rewrite the source of every function
below them, seconds at the start of a run.

So control flow that depends on a tensor's value is written with tf.cond, tf.where and tf.while_loop.
"""

import functools

import tensorflow as tf

program = functools.partial(tf.function, autograph=False)
untouched = tf.autograph.experimental.do_not_convert  # for functions that tf.data traces
