"""Inference: networks made ready to run in torch (CPU, GPU) or in ONNX Runtime."""
