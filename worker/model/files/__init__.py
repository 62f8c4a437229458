"""Trained files as configuration and named arrays; nothing in a file is executed, everything is bounded."""
