"""What a pickle in a PyTorch file says of tensors: dtypes, storages, and views of them."""

from dataclasses import dataclass

# The dtypes that PyTorch names, as safetensors spells them; storages are named after their C types.
DTYPES = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
STORAGES = {
    "BFloat16Storage": "BF16",
    "HalfStorage": "F16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "ComplexFloatStorage": "C64",
    "UntypedStorage": "U8",
}


class ForbiddenGlobalError(Exception):
    """The pickle names something that is no part of a tensor; the name is the only argument."""


class MalformedPickleError(Exception):
    """The pickle is not one that torch.save writes; the argument says what is wrong."""


@dataclass(frozen=True)
class DtypeName:
    """A dtype, as safetensors spells it."""

    name: str


@dataclass(frozen=True)
class StorageType:
    """The class of a storage: what its elements are."""

    dtype: str


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A run of elements that tensors share: `key` names its bytes in the file, `count` its elements."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor: a view of `storage`, `offset` and `strides` in elements of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
