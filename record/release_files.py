"""The files that a release consists of."""

ADAPTER_FILE = "adapter_model.safetensors"
