"""The pickles inside PyTorch files, read without running anything.

A pickle is a program, and Python's own unpickler calls whatever it names. Here a small machine knows
the opcodes that plain data is made of, and of all names only those that torch.save writes for
tensors; what a call makes is a description, never an object of PyTorch. Nothing is imported and
nothing is called by name.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from engine.model.torch_view import (
    DTYPES,
    STORAGES,
    DtypeName,
    ForbiddenGlobalError,
    MalformedPickleError,
    Storage,
    StorageType,
    View,
)

_SIZE_LIMIT = 100_000_000  # bytes of a pickle; that of a model with 10,000 tensors has 2 MB


@dataclass(frozen=True)
class _Callable:
    """A function that a pickle may call: one of ours, in place of the one that it names."""

    make: Callable[..., Any]


def load(stream: BinaryIO) -> Any:
    """The value of the pickle that `stream` stands at; `stream` then stands behind it.

    Tensors become `View`s; dicts, lists, tuples, texts and numbers are themselves.
    Raises ForbiddenGlobalError and MalformedPickleError, and OSError where the file cannot be read.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(cast(BinaryIO, _Limited(stream))):
            machine.step(opcode.name, argument)
        return machine.pop()
    except (ForbiddenGlobalError, MalformedPickleError):
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error) as error:
        raise MalformedPickleError(str(error)) from error


class _Limited:
    """The stream, but no more of it than a pickle may have."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _SIZE_LIMIT

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left <= 0:
            raise MalformedPickleError(f"it has more than {_SIZE_LIMIT} bytes")
        return data

    def read(self, count: int) -> bytes:
        return self._counted(self._stream.read(min(count, self._left)))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(self._left))


class _Machine:
    """The stack machine of the pickle format, without the opcodes that make objects of classes."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """The topmost value."""
        return self._stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Run one opcode, by its name in pickletools."""
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(self._stack) < count:
                raise MalformedPickleError("it takes more values than it has")
            self._stack[-count:] = [tuple(self._stack[-count:])]
        elif operation := _OPERATIONS.get(name):
            operation(self)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self._stack.append(find_global(module, attribute))
        else:
            raise MalformedPickleError(f"it uses {name}, which no file of tensors needs")

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._below.pop()
        return found

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self) -> None:
        items = self._since_mark()  # first: it changes which stack there is
        self._stack.append(tuple(items))

    def _list(self) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _dict(self) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._put(items)

    def _append(self) -> None:
        value = self.pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise MalformedPickleError("it appends to what is no list")
        self._stack[-1].extend(values)

    def _set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._put([key, value])

    def _set_items(self) -> None:
        self._put(self._since_mark())

    def _put(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise MalformedPickleError("it sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take for ever.
            if type(key) not in (str, int):
                raise MalformedPickleError(f"it has a key of type {type(key).__name__}")
            target[key] = value

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self._stack.append(find_global(str(module), str(name)))

    def _reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not _Callable or type(arguments) is not tuple:
            raise MalformedPickleError("it calls what is no function")
        self._stack.append(function.make(*arguments))

    def _build(self) -> None:
        """Attributes, such as the versions of modules that a state dict carries: not looked at."""
        self.pop()
        if type(self._stack[-1]) is not dict:
            raise MalformedPickleError("it sets attributes of what is no dict")

    def _persistent(self) -> None:
        self._stack.append(_storage(self.pop()))

    def _duplicate(self) -> None:
        self._stack.append(self._stack[-1])


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
    | {"FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPERATIONS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine._mark,
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
    "POP": _Machine.pop,
    "POP_MARK": _Machine._since_mark,
    "DUP": _Machine._duplicate,
}


def find_global(module: str, name: str) -> Any:
    """What stands here for `module`.`name`; ForbiddenGlobalError where nothing does."""
    if module in ("torch", "torch.storage"):
        if storage := STORAGES.get(name):
            return StorageType(storage)
        if dtype := DTYPES.get(name):
            return DtypeName(dtype)
    if found := _FUNCTIONS.get(f"{module}.{name}"):
        return _Callable(found)
    raise ForbiddenGlobalError(f"{module}.{name}")


def _storage(identity: Any) -> Storage:
    """The storage of a persistent id: ("storage", type, key, device, elements), in old files one more.

    https://github.com/pytorch/pytorch/blob/main/torch/serialization.py, `persistent_id`.
    """
    match identity:
        case ("storage", StorageType(dtype), str(key), str(), int(count)) if count >= 0:
            return Storage(key=key, dtype=dtype, count=count)
        case ("storage", StorageType(dtype), str(key), str(), int(count), None) if count >= 0:
            return Storage(key=key, dtype=dtype, count=count)
    raise MalformedPickleError("it names data that is no storage of a tensor")


def _view(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: DtypeName | None = None
) -> View:
    """A tensor of `rest` = (requires_grad, hooks[, flags]); the flags say conjugated or negated."""
    numbers = (offset, *shape, *strides)
    if type(storage) is not Storage or not all(type(n) is int and n >= 0 for n in numbers):
        raise MalformedPickleError("it describes a tensor in another way than torch.save does")
    if len(shape) != len(strides):
        raise MalformedPickleError("a tensor has not as many strides as dimensions")
    if len(rest) > 2 and rest[2]:
        raise MalformedPickleError("a tensor is stored conjugated or negated")
    return View(
        storage=storage,
        dtype=dtype.name if dtype else storage.dtype,
        offset=offset,
        shape=tuple(shape),
        strides=tuple(strides),
    )


def _view_v3(*arguments: Any) -> View:
    """As `_view`, with the dtype behind the hooks: for storages that are bytes."""
    if len(arguments) < 7 or type(arguments[6]) is not DtypeName:
        raise MalformedPickleError("a tensor has no dtype")
    return _view(*arguments[:6], *arguments[7:], dtype=arguments[6])


def _parameter(data: Any, *_: Any) -> Any:
    """A torch.nn.Parameter is its tensor."""
    return data


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    machine = _Machine()
    machine._stack.append({})
    machine._put([part for pair in pairs for part in pair])
    found: dict[Any, Any] = machine.pop()
    return found


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_tensor_v3": _view_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": tuple,
    "torch.device": partial(_parameter, None),
}
