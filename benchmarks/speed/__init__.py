"""Seconds: whole commands, networks alone, ONNX Runtime, GPUs, rasters over the network, other tools."""
