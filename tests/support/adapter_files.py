"""Read and write adapter files as header and tensors, to change parts of them."""

import json

from safetensors import safe_open
from safetensors.torch import save_file


def read_header_and_tensors(path):
    """Return the header as plain types, and the tensors by name."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name).clone() for name in names}
        return json.loads(file.metadata()["recyclelora"]), tensors


def write_header_and_tensors(path, header, tensors):
    """Write the result of :func:`read_header_and_tensors`."""
    save_file(tensors, path, {"recyclelora": json.dumps(header)})
