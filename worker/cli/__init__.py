"""The program `lstm-worker`: one file per command."""
