"""Pure logic of the worker: no clock, no I/O, no logging, no randomness."""
