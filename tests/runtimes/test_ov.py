"""OpenVINO: float32 where the processor has bfloat16, the device promised, results that stay as they were given."""
