"""One small rule per layer class: configuration and weights to a step and to a whole-sequence evaluation."""
