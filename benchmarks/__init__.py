"""Measurements that need a broker of their own, and their plots."""
