"""The whole model compiled to one loop over samples in record order."""
