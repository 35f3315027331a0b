"""Hugging Face model folders: config.json beside safetensors files and their index, whole tensors under their names.

Reads and writes BF16, FP32 and the FP8 that DeepSeek publishes: E4M3 codes and, as "<name>_scale_inv", an FP32 factor
for every 128 x 128 block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.errors import ConfigError, StorageError
from training.fp8.quantise import QTensor, dequantise, quantise_blocks
from training.matmul import torch_dtype
from training.model.config import BLOCK, ModelConfig
from training.model.hf_names import expected_shapes
from training.precision import BF16, FP8, FP32, Precision

INDEX, SINGLE_FILE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
SCALE = "_scale_inv"
QUANTISATION = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [BLOCK, BLOCK],
}
_QUANTISED = re.compile(r"\.(self_attn\.\w+_proj(_with_mqa)?|mlp\.([\w.]+\.)?(gate|up|down)_proj)\.weight$")
"""What DeepSeek ships in FP8: projections of attention and feed-forward; not embedding, head, norms, gate, eh_proj."""

_KNOWN_EXTRA = re.compile(r"(rotary_emb\.inv_freq|layers\.\d+\.(embed_tokens|shared_head\.head)\.weight)$")
"""Left aside when read: computed anew, or copies of the embedding and head beside multi-token prediction."""


class HfTensors(Mapping[str, Tensor]):
    """The folder's tensors by name, read from disk when asked for; FP8 ones come as FP32 values."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder, self._files = folder, files
        self._opened: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        tensor = self._read(name)
        if tensor.dtype == torch.float8_e4m3fn:
            return dequantise(QTensor(tensor, self._read(name + SCALE).float()))
        return tensor

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._files and not name.endswith(SCALE)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._files if not name.endswith(SCALE))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def shape(self, name: str) -> tuple[int, ...]:
        """From the file's header alone."""
        return tuple(self._ask(name, lambda file: file.get_slice(name).get_shape()))

    def _read(self, name: str) -> Tensor:
        return self._ask(name, lambda file: file.get_tensor(name))

    def _ask(self, name: str, question: Callable[[Any], Any]) -> Any:
        where = f"model.folder = {self._folder}"
        if name not in self._files:
            raise ConfigError(f"{where}: {name} is missing")
        path = self._folder / self._files[name]
        if path.name not in self._opened:
            self._opened[path.name] = _open(path)
        try:
            return question(self._opened[path.name])
        except SafetensorError as cause:
            raise ConfigError(f"{where}: {name} cannot be read from {path.name}: {cause}") from cause


def load_hf(folder: Path) -> tuple[ModelConfig, HfTensors]:
    """Raise ConfigError, in one line, for a folder that does not hold all of a model that we can build."""
    values = _read_json(folder / CONFIG, folder)
    quantisation = values.get("quantization_config") or {}
    method = quantisation.get("quant_method", "fp8")
    block = list(quantisation.get("weight_block_size") or (BLOCK, BLOCK))
    if method != "fp8" or block != [BLOCK, BLOCK]:
        raise ConfigError(f"model.folder = {folder}: quantised as {method} {block}, only fp8 [128, 128] can be read")
    config = ModelConfig.from_hf(values)
    tensors = HfTensors(folder, _files(folder))
    _check(folder, config, tensors)
    return config, tensors


def save_hf(
    folder: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    dtype: Precision = BF16,
    *,
    max_file_bytes: int = 5 * 10**9,
) -> None:
    """Write whole `tensors` (every name of `expected_shapes`) as FP32, BF16 or FP8, in place of a model already there.

    Until all is written there is no config.json, so nobody reads half a model. Raise ConfigError where a tensor is
    missing, StorageError where the disk refuses.
    """
    missing = [name for name in expected_shapes(config) if name not in tensors]
    if missing:
        raise ConfigError(f"{len(missing)} tensors are missing, the first is {missing[0]}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        index = _write_files(folder, _stored(config, tensors, dtype), max_file_bytes)
        _write_json(folder / INDEX, index)
        for stale in set(folder.glob("model*.safetensors")) - {folder / name for name in index["weight_map"].values()}:
            stale.unlink()
        values = config.to_hf() | {"torch_dtype": "float32" if dtype is FP32 else "bfloat16"}
        _write_json(folder / CONFIG, values | ({"quantization_config": QUANTISATION} if dtype is FP8 else {}))
    except (OSError, SafetensorError) as cause:
        for rest in folder.glob(_PARTIAL.format("*")):
            rest.unlink()
        raise StorageError(f"cannot write {folder}: {cause}") from cause


def _write_files(folder: Path, stored: Iterable[tuple[str, Tensor]], max_file_bytes: int) -> dict[str, Any]:
    """The index. Files get their names once their number is known."""
    groups: list[list[str]] = []
    total_bytes = 0
    for number, batch in enumerate(_batches(stored, max_file_bytes)):
        save_file(batch, folder / _PARTIAL.format(number), metadata={"format": "pt"})
        groups.append(list(batch))
        total_bytes += sum(tensor.nbytes for tensor in batch.values())
    names = [f"model-{number + 1:05d}-of-{len(groups):05d}.safetensors" for number in range(len(groups))]
    for number, name in enumerate(names):
        (folder / _PARTIAL.format(number)).rename(folder / name)
    weight_map = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    return {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}


_PARTIAL = "writing-{}.tmp"


def _batches(stored: Iterable[tuple[str, Tensor]], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """One file's tensors at a time."""
    batch: dict[str, Tensor] = {}
    for name, tensor in stored:
        if batch and sum(other.nbytes for other in batch.values()) + tensor.nbytes > max_bytes:
            yield batch
            batch = {}
        batch[name] = tensor
    yield batch


def _stored(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: Precision) -> Iterator[tuple[str, Tensor]]:
    """What goes into the files, in the order of the layers."""
    for name in expected_shapes(config):
        tensor = tensors[name].detach().cpu()
        if name.endswith("e_score_correction_bias"):
            yield name, tensor.float().clone()
        elif dtype is FP8 and _QUANTISED.search(name):
            codes, scales = quantise_blocks(tensor, name)
            yield name, codes.contiguous()
            yield name + SCALE, scales.contiguous()
        else:
            yield name, tensor.to(torch_dtype(BF16 if dtype is FP8 else dtype)).clone().contiguous()
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    for layer in range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers):
        # Published folders repeat both; vLLM looks for them there.
        for copy, source in (("embed_tokens", "model.embed_tokens"), ("shared_head.head", head)):
            stored = tensors[f"{source}.weight"].detach().cpu().to(torch_dtype(FP32 if dtype is FP32 else BF16))
            yield f"model.layers.{layer}.{copy}.weight", stored.clone().contiguous()


def _check(folder: Path, config: ModelConfig, tensors: HfTensors) -> None:
    where, expected = f"model.folder = {folder}", expected_shapes(config)
    missing = [name for name in expected if name not in tensors]
    if missing:
        hint = _MTP_HINT if all(_is_mtp(name, config) for name in missing) else ""
        raise ConfigError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]}{hint}")
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    unknown = [name for name in tensors if name not in expected and name not in tied and not _KNOWN_EXTRA.search(name)]
    if unknown:
        raise ConfigError(f"{where}: {len(unknown)} tensors are unknown, the first is {unknown[0]}")
    for name, shape in expected.items():
        if tensors.shape(name) != shape:
            raise ConfigError(f"{where}: {name} is {list(tensors.shape(name))}, config.json says {list(shape)}")


_MTP_HINT = "; num_nextn_predict_layers = 0 in config.json leaves multi-token prediction out"


def _is_mtp(name: str, config: ModelConfig) -> bool:
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return layer is not None and int(layer[1]) >= config.num_hidden_layers


def _files(folder: Path) -> dict[str, str]:
    """Which file holds which tensor."""
    if (folder / INDEX).exists():
        weight_map = _read_json(folder / INDEX, folder).get("weight_map", {})
        absent = sorted({file for file in weight_map.values() if not (folder / file).exists()})
        if absent:
            raise ConfigError(f"model.folder = {folder}: {absent[0]} is missing, {INDEX} names it")
        return {str(name): str(file) for name, file in weight_map.items()}
    if not (folder / SINGLE_FILE).exists():
        raise ConfigError(f"model.folder = {folder}: has neither {INDEX} nor {SINGLE_FILE}")
    with _open(folder / SINGLE_FILE) as file:
        return dict.fromkeys(file.keys(), SINGLE_FILE)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as cause:
        raise ConfigError(f"model.folder = {path.parent}: {path.name} cannot be read: {cause}") from cause


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"model.folder = {folder}: has no {path.name}") from None
    except (OSError, ValueError) as cause:
        raise ConfigError(f"model.folder = {folder}: {path.name} cannot be read: {cause}") from cause
    if not isinstance(values, dict):
        raise ConfigError(f"model.folder = {folder}: {path.name} holds no object")
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    partial.rename(path)
