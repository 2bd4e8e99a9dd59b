"""Untrusted weights, checkpoints and adapters: no code runs, and nothing is loaded partially."""

import copy
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapted_layers, load_adapters, save_adapters
from recyclelora.backbone import DinoVisionTransformer, load_weights
from recyclelora.engine import read_checkpoint
from recyclelora.engine.checkpoint import FORMAT

from ..support.adapter_files import read_header_and_tensors, write_header_and_tensors
from ..support.training_runs import run_tool

KERNEL = "patch_embed.proj.weight"


class Evil:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def backbone():
    return DinoVisionTransformer(img_size=28, patch_size=14, embed_dim=24, depth=4, num_heads=2)


def read_weights(file):
    load_weights(backbone(), file)


def read_adapters(file):
    load_adapters(nn.Sequential(nn.Linear(8, 8)), file)


READERS = {"weights": read_weights, "checkpoint": read_checkpoint, "adapters": read_adapters}
# Wrappers of a pickle that runs code.
WRAPPINGS = {
    "checkpoint": lambda evil, f: torch.save({"format": FORMAT, "model": {"a": evil}}, f),
    "optimizer": lambda evil, f: torch.save({"format": FORMAT, "model": {}, "optimizer": evil}, f),
    "old": lambda evil, f: torch.save({"a": evil}, f, _use_new_zipfile_serialization=False),
    "pickle": lambda evil, f: f.write_bytes(pickle.dumps({"a": evil})),
    "pickle of protocol 0": lambda evil, f: f.write_bytes(pickle.dumps(evil, protocol=0)),
    "numpy": lambda evil, f: f.write_bytes(pickle.dumps(np.array([evil], dtype=object))),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_file_with_pickled_code_raises(wrapping, reader, tmp_path):
    file, proof = tmp_path / "evil.pth", tmp_path / "was_run"
    WRAPPINGS[wrapping](Evil(proof), file)
    with pytest.raises(ValueError, match=r"evil\.pth"):
        READERS[reader](file)
    assert not proof.exists()


# Pickle instructions that run code.
UNSAFE = (
    r"\bpickle\.loads?\(|\byaml\.(?!safe_)|allow_pickle=True|(?<![.\w`])(eval|exec)\(|"
    r"shell=True|os\.system"
)


# A message from our own worker process, not a file.
TRUSTED = {"shared_memory.py": "return pickle.loads(self._message)"}


def test_sources_do_not_load_files_unsafely():
    root, found = Path(__file__).parents[2], []
    for folder in ("projects", "tools", "configs"):
        for source in sorted((root / folder).rglob("*.py")):
            for line in source.read_text(encoding="utf-8").splitlines():
                loads = "torch.load(" in line and "weights_only=True" not in line
                if TRUSTED.get(source.name) == line.strip():
                    continue
                if loads or re.search(UNSAFE, line):
                    found.append(f"{source.name}: {line.strip()}")
    assert not found, "\n".join(found)


def zipped(file, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """A checkpoint of one tensor whose parts can be changed."""
    torch.save({"format": FORMAT, "model": {"a": torch.zeros(64)}}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


def in_numbers(content):
    """Change the values of the tensor."""
    return lambda name, old: content if name.endswith("data/0") else old


def claim_many(name, content):
    many = b"\x8a\x06" + (10**12).to_bytes(6, "little")
    return content.replace(b"K@", many) if name.endswith("data.pkl") else content


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**entry):
    return safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | entry})


def saved(content):
    return lambda file: torch.save(content, file)


def raw(content):
    return lambda file: file.write_bytes(content)


DAMAGED = {
    "nothing": raw(b""),
    "text": raw(b"no weights"),
    "a photograph": raw(b"\xff\xd8\xff\xe0 a photograph"),
    "a pickle of brackets": raw(b"\x80\x02" + b"(" * 100_000 + b"."),
    "a pickle of nested lists": raw(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."),
    "a pickle that claims 2 GB": raw(b"\x80\x03B\xff\xff\xff\x7fabc"),
    "a pickle that claims 8 EB": raw(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc"),
    "a zip that claims 4 TB": lambda f: zipped(f, claim_many),
    "a zip with too few numbers": lambda f: zipped(f, in_numbers(b"0123")),
    "a bomb of zeros": lambda f: zipped(f, in_numbers(bytes(10**7)), zipfile.ZIP_DEFLATED),
    "a zip without a pickle": lambda f: zipped(f, lambda name, content: b""),
    "safetensors of a lying length": raw(safetensors({}, length=1 << 62)),
    "safetensors of 4 TB": raw(one(shape=[1 << 40], data_offsets=[0, 1 << 42])),
    "safetensors that end early": raw(one()),
    "safetensors backwards": raw(one(data_offsets=[16, 0])),
    "safetensors of another type": raw(one(dtype="F77")),
    "safetensors nested deep": raw(safetensors(b'{"a":' + b"[" * 50_000)),
    "a list": saved([1, 2]),
    "None": saved(None),
    "sparse": saved({KERNEL: torch.zeros(24, 3, 14, 14).to_sparse()}),
    "without values": saved({KERNEL: torch.zeros(24, 3, 14, 14, device="meta")}),
    "complex": saved({KERNEL: torch.zeros(24, 3, 14, 14, dtype=torch.complex64)}),
    "one number repeated": saved({KERNEL: torch.zeros(1).expand(24, 3, 10**5, 10**5)}),
}


@pytest.mark.parametrize("reader", ["weights", "adapters"])
@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_file_raises_one_message(fault, reader, tmp_path):
    file = tmp_path / "file.pth"
    DAMAGED[fault](file)
    with pytest.raises(ValueError) as stopped:
        READERS[reader](file)
    said = str(stopped.value)
    assert str(file) in said and "\n" not in said and len(said) < 900


def tensor(**fields):
    return TensorProto(**{"name": KERNEL, "data_type": TensorProto.FLOAT, "dims": [1]} | fields)


def outside():
    entry = tensor(data_location=TensorProto.EXTERNAL)
    entry.external_data.add(key="location", value="/etc/passwd")
    return entry


WHOLE = numpy_helper.from_array(np.zeros((24, 3, 14, 14), np.float32), KERNEL)
ONNX = {
    "no ViT": ([numpy_helper.from_array(np.zeros(3, np.float32), "conv.weight")], []),
    "nothing": ([], []),
    "a shape of 4 TB": ([tensor(dims=[10**12], raw_data=b"1234")], []),
    "a negative shape": ([tensor(dims=[-5, 3], raw_data=b"12345678")], []),
    "an unknown type": ([tensor(data_type=77, raw_data=b"1234")], []),
    "no type": ([tensor(data_type=0)], []),
    "strings": ([tensor(data_type=TensorProto.STRING, string_data=[b"x"])], []),
    "half a number": ([tensor(raw_data=b"12345")], []),
    "numbers in another file": ([outside()], []),
    "a product of nothing": ([WHOLE], [NodeProto(op_type="MatMul", output=["p"])]),
    "a product for nobody": ([WHOLE], [NodeProto(op_type="MatMul", input=["x", KERNEL])]),
    "whole numbers": ([numpy_helper.from_array(np.zeros(3, np.int64), KERNEL)], []),
}


@pytest.mark.parametrize("fault", ONNX)
def test_invalid_onnx_file_raises_one_message(fault, tmp_path):
    initialisers, nodes = ONNX[fault]
    model = helper.make_model(helper.make_graph(nodes, "graph", [], [], initialisers))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"model\.onnx") as stopped:
        read_weights(tmp_path / "model.onnx")
    assert "\n" not in str(stopped.value) and len(str(stopped.value)) < 900


def test_onnx_file_with_random_bytes_raises(tmp_path):
    model = helper.make_model(helper.make_graph([], "graph", [], [], [WHOLE])).SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(model)
        for place in rng.integers(0, 150, 3):
            content[place] = rng.integers(256)
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(ValueError):
            read_weights(tmp_path / "model.onnx")


# Changes to an adapter file: to the header's entry of a layer, and to its tensors.
ENTRY = {
    "a rank too many": lambda e, t: e["settings"].update(r_main=4),
    "a negative rank": lambda e, t: e["settings"].update(r_sub=-1),
    "a rank that is text": lambda e, t: e["settings"].update(r_main="3"),
    "a rank that is a list": lambda e, t: e["settings"].update(r_main=[3]),
    "a huge rank": lambda e, t: e["settings"].update(r_main=10**9),
    "no alpha": lambda e, t: e["settings"].pop("alpha"),
    "alpha NaN": lambda e, t: e["settings"].update(alpha=float("nan")),
    "another init": lambda e, t: e["settings"].update(init="svd"),
    "an unknown init": lambda e, t: e["settings"].update(init=["rrqr", {}]),
    "sparse": lambda e, t: e["settings"].update(sparse_a=True),
    "sparse by a word": lambda e, t: e["settings"].update(sparse_a="no"),
    "settings that are text": lambda e, t: e.update(settings="x"),
    "no factor": lambda e, t: t.pop("lora_B_sub"),
    "no initial factor": lambda e, t: t.pop("initial_B"),
    "a factor too many": lambda e, t: t.update(lora_C=torch.zeros(1)),
    "a factor of one number": lambda e, t: t.update(lora_B_main=torch.zeros(1, 1)),
    "a factor with NaN": lambda e, t: t["lora_A_main"].fill_(torch.nan),
    "a factor of whole numbers": lambda e, t: t.update(lora_A_main=torch.ones(3, 8).int()),
    "columns outside": lambda e, t: t["columns"].fill_(10**9),
    "columns twice": lambda e, t: t["columns"].fill_(1),
    "columns that are fractions": lambda e, t: t.update(columns=torch.zeros(4)),
    "initial factors of another shape": lambda e, t: t.update(initial_B=torch.zeros(8, 3)),
    "no digest": lambda e, t: e.pop("weight_sha256"),
    "another digest": lambda e, t: e.update(weight_sha256="0"),
    "a digest that is a number": lambda e, t: e.update(weight_sha256=0),
    "initial factors left out": lambda e, t: e.update(initial_sha256="0"),
    "another dtype": lambda e, t: e.update(weight_dtype="bfloat16"),
    "an unknown dtype": lambda e, t: e.update(weight_dtype="float8"),
    "another shape": lambda e, t: e.update(shape=[9, 9]),
    "a shape of three": lambda e, t: e.update(shape=[8, 8, 8]),
    "a shape of fractions": lambda e, t: e.update(shape=[8.0, 8.0]),
}


@pytest.mark.parametrize("fault", ENTRY)
def test_load_adapters_invalid_entry_changes_nothing(fault, tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    trained = adapt(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), r_main=3, r_sub=1)
    for mine, theirs in zip(model, trained):
        mine.weight.data = theirs.pretrained_weight().clone()
    file = Path(tmp_path, "adapters.safetensors")
    save_adapters(trained, file)
    header, tensors = read_header_and_tensors(file)
    # The second layer; the first one is valid.
    layer = {key[2:]: tensors.pop(key) for key in [*tensors] if key.startswith("1.")}
    ENTRY[fault](header["layers"]["1"], layer)
    tensors |= {f"1.{key}": tensor for key, tensor in layer.items()}
    write_header_and_tensors(file, header, tensors)
    with pytest.raises(ValueError, match=r"adapters\.safetensors") as stopped:
        load_adapters(model, file)
    assert "\n" not in str(stopped.value) and len(str(stopped.value)) < 500
    assert not adapted_layers(model)


HEADER = {
    "another format": lambda h: h.update(format="x"),
    "a newer format": lambda h: h.update(format_version=2),
    "no version": lambda h: h.pop("recyclelora_version"),
    "no layers": lambda h: h.update(layers={}),
    "layers that are a list": lambda h: h.update(layers=[1]),
    "a layer that is text": lambda h: h["layers"].update({"0": "x"}),
    "no other tensors": lambda h: h.pop("also"),
    "other tensors that are numbers": lambda h: h.update(also={"0.bias": 1}),
    "other tensors that are missing": lambda h: h.update(also={"0.bias": "x"}),
    "a weight beside the adapters": lambda h: h.update(also={"0.weight": "0.initial_B"}),
}


@pytest.mark.parametrize("fault", HEADER)
def test_load_adapters_invalid_header_changes_nothing(fault, tmp_path):
    model = nn.Sequential(nn.Linear(8, 8))
    file = Path(tmp_path, "adapters.safetensors")
    save_adapters(adapt(nn.Sequential(nn.Linear(8, 8)), r_main=3, r_sub=1), file)
    header, tensors = read_header_and_tensors(file)
    HEADER[fault](header)
    write_header_and_tensors(file, header, tensors)
    with pytest.raises(ValueError, match=r"adapters\.safetensors"):
        load_adapters(model, file)
    assert not adapted_layers(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000])
def test_load_adapters_header_is_no_header_raises(text, tmp_path):
    file = tmp_path / "adapters.safetensors"
    save_file({"a": torch.ones(1)}, file, {"recyclelora": text})
    message = r"adapters\.safetensors (is damaged|contains no adapters)"
    with pytest.raises(ValueError, match=message):
        read_adapters(file)


def test_load_adapters_random_bytes_raises(tmp_path):
    torch.manual_seed(0)
    file, model = tmp_path / "adapters.safetensors", nn.Sequential(nn.Linear(8, 8))
    save_adapters(adapt(copy.deepcopy(model), r_main=3, r_sub=1), file)
    content, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(content)
        for place in rng.integers(0, 900, 2):
            changed[place] = rng.integers(256)
        end = rng.choice([len(changed), rng.integers(len(changed))])
        file.write_bytes(changed[:end])
        plain = copy.deepcopy(model)
        with pytest.raises(ValueError):
            load_adapters(plain, file)
        assert not adapted_layers(plain)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, street_files):
    """Return the checkpoint after one iteration of the tiny config."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    folder = tmp_path_factory.mktemp("trained")
    overrides = [f"train.output_dir={folder}", f"dataloader.streets={street_files}"]
    run_tool(*overrides, "train.max_iter=1", "train.picture_period=0")
    for name in ("day", "night"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    return folder / "iter_0000001.pth"


def changed(change):
    def write(checkpoint, file):
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        torch.save(content, file)

    return write


def cut(checkpoint, file):
    file.write_bytes(checkpoint.read_bytes()[:-1000])


def spoil(part, value):
    """Set the last tensor of a part of the checkpoint to ``value``."""

    def change(content):
        name, tensor = content[part].popitem()
        content[part][name] = tensor.clone().index_fill_(0, torch.tensor([0]), value)

    return change


# The damage of the checkpoint, the function that creates it, and overrides of the run.
CHECKPOINTS = {
    "it is text": (lambda c, f: f.write_text("no checkpoint"), []),
    "it is empty": (lambda c, f: f.write_text(""), []),
    "it was cut off": (cut, []),
    "it runs code": (lambda c, f: WRAPPINGS["checkpoint"](Evil("/dev/null/x"), f), []),
    "it holds weights alone": (lambda c, f: torch.save({"a": torch.ones(1)}, f), []),
    "it lacks the model": (changed(lambda c: c.pop("model")), []),
    "its model is a number": (changed(lambda c: c.update(model=3)), []),
    "it lacks a tensor": (changed(lambda c: c["model"].popitem()), []),
    "it has a tensor too many": (changed(lambda c: c["model"].update(more=torch.ones(1))), []),
    "a weight is NaN": (changed(spoil("model", float("nan"))), []),
    "a weight is infinite": (changed(spoil("model", float("-inf"))), []),
    "its ranks are others": (shutil.copy, ["model.backbone.r_main=4"]),
    "its head is another": (shutil.copy, ["model.hidden_dim=64"]),
    "its depth is another": (shutil.copy, ["model.backbone.module.module.depth=5"]),
}


@pytest.mark.parametrize("mode", ["train", "--eval-only"])
@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_invalid_checkpoint_stops_the_run(fault, mode, trained, refusal, tmp_path):
    write, overrides = CHECKPOINTS[fault]
    file = tmp_path / "checkpoint.pth"
    write(trained, file)
    options = [mode] if mode.startswith("--") else []
    key = "evaluation.checkpoint" if options else "train.init_checkpoint"
    said = refusal(*options, f"{key}={file}", *overrides)
    assert "checkpoint.pth" in said
