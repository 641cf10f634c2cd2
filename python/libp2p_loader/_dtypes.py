"""The types of elements, as safetensors, numpy and torch call them."""

from __future__ import annotations

from typing import Any

from ._core import BadUsage

#: Those that numpy has.
NUMPY = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "C64": "<c8",
}

#: Those that numpy gets from `ml_dtypes`.
ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}

TORCH = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def typed(dtype: str, shape: Any, size: int) -> tuple[str, Any]:
    """Type and shape of a tensor; for types that neither numpy nor torch has (`F4`, `F6_…`), bytes in a row."""
    return (dtype, shape) if dtype in TORCH else ("U8", [size])


def numpy_dtype(name: str) -> Any:
    import numpy as np

    if name in NUMPY:
        return np.dtype(NUMPY[name])
    if name not in ML_DTYPES:
        raise BadUsage(f"numpy has no type for {name}: `tensors().bytes(name)` has its bytes")
    try:
        import ml_dtypes
    except ImportError:
        raise BadUsage(f"numpy needs the package ml_dtypes for {name}: pip install ml-dtypes") from None
    found = getattr(ml_dtypes, ML_DTYPES[name], None)
    if found is None:
        raise BadUsage(f"this version of ml_dtypes has no {ML_DTYPES[name]}: pip install -U ml-dtypes")
    return np.dtype(found)


def torch_dtype(name: str) -> Any:
    import torch

    found = getattr(torch, TORCH.get(name, ""), None)
    if found is None:
        raise BadUsage(f"torch {torch.__version__} has no type for {name}: `tensors().bytes(name)` has its bytes")
    return found
