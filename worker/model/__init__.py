"""A trained model file becomes a step program: one sample in, the next state and the readout out."""
