"""A consolidated generator, loaded and used with torch, numpy and safetensors alone."""
