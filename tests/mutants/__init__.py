"""Deliberate bugs, each a few lines put into the real code while it is imported, and a runner that looks for them.

The simulator must be able to fail.  Each *mutant* of the catalogue breaks one promise; the default campaign, with no
scenario written for it, must find every one within 300 seeds.  `make mutants` says how many it took and which check
caught it.  A mutant that survives is a hole in the checks or in the faults.

Nothing outside the process that asks for a mutant is touched: no file, no bytecode cache, no switch in production code.
This package imports nothing of `quorate` until a mutant is applied.
"""
