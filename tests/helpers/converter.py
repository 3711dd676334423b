"""A stand-in for llama.cpp's converter: none that a test could install knows the tokenizers of the tests."""

# writes what it was asked for in place of weights
CONVERTER = """
import json, os, pathlib, sys
options = dict(zip(sys.argv[1:-1:2], sys.argv[2:-1:2]))
model = pathlib.Path(sys.argv[-1])
assert (model / "model.safetensors").exists() and os.environ["HF_HUB_OFFLINE"] == "1"
pathlib.Path(options["--outfile"]).write_bytes(b"GGUF" + json.dumps(options).encode())
print("lots of words")
"""
