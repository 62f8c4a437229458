"""Bytes of a record to features and controls, predictions to bytes; one file per format, as in schemas/."""
