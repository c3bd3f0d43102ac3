"""INT8: a model file quantized, within a budget of accuracy."""
