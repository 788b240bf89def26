"""Sans-I/O consensus: replicas are values that turn events into effects.

`records` says what a replica may ask to persist, `replica` is the interface that every
protocol implements, `protocols` lists the protocols by name, and each protocol has a
package of its own.  Nothing here does I/O, logs, reads a clock or draws randomness.
"""
