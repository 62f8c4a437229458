"""Measurements of this machine against references taken in the same run; `lstm-worker bench` runs them."""
