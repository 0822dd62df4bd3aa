"""NVTX ranges for the phases of a request: one domain, constant names, the running number as payload.

Chooses a back end once, at the first push: the `nvtx` package where its domain is real, libnvtx3interop
through ctypes, `torch.cuda.nvtx`, or none. With no tool attached a push is a call that does nothing.
Knows nothing of phases or pipelines. Push and pop must come from the same thread, as NVTX demands.
"""

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

DOMAIN = "sweep"

SAID = "NVTX back end: "
"""What `python -m profiling.ranges` prints before the name of the back end that this process would use."""

TOOL_VARIABLE = "NVTX_INJECTION64_PATH"
"""The library of the NVTX tool. Every tool, Nsight Systems included, sets it for the processes that it watches."""


class Backend(Protocol):
    """Something that can open and close a named range."""

    name: str

    def push(self, name: str, index: int) -> None:
        """Open a range called `name` with payload `index`."""

    def pop(self) -> None:
        """Close the innermost open range."""


class NoBackend:
    """No tool is listening, or none can be reached: nothing happens."""

    name = "none"

    def push(self, name: str, index: int) -> None:
        """Do nothing."""

    def pop(self) -> None:
        """Do nothing."""


class NvtxPackage:
    """The `nvtx` package. Raises RuntimeError where its domain is a dummy (no tool, or a tool too old for it)."""

    name = "nvtx"

    def __init__(self) -> None:
        import nvtx

        domain = nvtx.get_domain(DOMAIN)
        if not isinstance(domain, nvtx.nvtx.Domain):
            raise RuntimeError("the nvtx package has only a dummy domain under this tool")
        self._domain = domain
        self._per_thread = threading.local()  # attributes are changed in place, so threads must not share them

    def push(self, name: str, index: int) -> None:
        """Open a range called `name` with payload `index`."""
        attributes = self._per_thread.__dict__.get(name)
        if attributes is None:
            attributes = self._domain.get_event_attributes(message=name)
            self._per_thread.__dict__[name] = attributes
        attributes.payload = index
        self._domain.push_range(attributes)

    def pop(self) -> None:
        """Close the innermost open range."""
        self._domain.pop_range()


class EventAttributes(ctypes.Structure):
    """`nvtxEventAttributes_t` of nvToolsExt.h (NVTX 3), with an int64 payload and a registered string."""

    _fields_: ClassVar = [
        ("version", ctypes.c_uint16),
        ("size", ctypes.c_uint16),
        ("category", ctypes.c_uint32),
        ("color_type", ctypes.c_int32),
        ("color", ctypes.c_uint32),
        ("payload_type", ctypes.c_int32),
        ("reserved0", ctypes.c_int32),
        ("payload", ctypes.c_int64),
        ("message_type", ctypes.c_int32),
        ("message", ctypes.c_void_p),
    ]


class InteropLibrary:
    """NVIDIA's libnvtx3interop through ctypes. Raises OSError where there is none."""

    name = "libnvtx3interop"

    def __init__(self, path: str | None = None) -> None:
        library = ctypes.CDLL(path or find_interop_library())
        library.nvtxDomainCreateA.restype = ctypes.c_void_p
        library.nvtxDomainRegisterStringA.restype = ctypes.c_void_p
        library.nvtxDomainRegisterStringA.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.nvtxDomainRangePushEx.argtypes = (ctypes.c_void_p, ctypes.POINTER(EventAttributes))
        library.nvtxDomainRangePop.argtypes = (ctypes.c_void_p,)
        self._library = library
        self._domain = ctypes.c_void_p(library.nvtxDomainCreateA(DOMAIN.encode()))
        self._strings: dict[str, int | None] = {}

    def push(self, name: str, index: int) -> None:
        """Open a range called `name` with payload `index`."""
        if name not in self._strings:
            self._strings[name] = self._library.nvtxDomainRegisterStringA(self._domain, name.encode())
        attributes = EventAttributes(
            version=3,
            size=ctypes.sizeof(EventAttributes),
            payload_type=2,  # NVTX_PAYLOAD_TYPE_INT64
            payload=index,
            message_type=3,  # NVTX_MESSAGE_TYPE_REGISTERED
            message=self._strings[name],
        )
        self._library.nvtxDomainRangePushEx(self._domain, ctypes.byref(attributes))

    def pop(self) -> None:
        """Close the innermost open range."""
        self._library.nvtxDomainRangePop(self._domain)


class TorchNvtx:
    """PyTorch's own NVTX: no domain and no payload. Raises RuntimeError in a PyTorch built without CUDA.

    ImportError where torch is not loaded: a process that does not need torch should not import it for this.
    """

    name = "torch.cuda.nvtx"

    def __init__(self) -> None:
        if "torch" not in sys.modules:
            raise ImportError("torch is not loaded in this process")
        import torch.cuda.nvtx

        self._nvtx = torch.cuda.nvtx
        self._nvtx.range_push(DOMAIN)
        self._nvtx.range_pop()

    def push(self, name: str, index: int) -> None:
        """Open a range called `name`; `index` is lost."""
        self._nvtx.range_push(name)

    def pop(self) -> None:
        """Close the innermost open range."""
        self._nvtx.range_pop()


def find_interop_library() -> str:
    """Path of libnvtx3interop in NVIDIA's wheels or a CUDA toolkit, else its bare name for the system's search."""
    found = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    toolkits = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [library for folder in folders for library in sorted(folder.glob("*/lib/libnvtx3interop.so*"))]
    for toolkit in (*toolkits, Path("/usr/local/cuda")):
        places += [*sorted(toolkit.glob("lib64/libnvtx3interop.so*")), *sorted(toolkit.glob("lib/libnvtx3interop.so*"))]
    return str(places[0]) if places else "libnvtx3interop.so.1"


def choose() -> Backend:
    """The first back end that works, or NoBackend; warns once when a tool is attached and none works."""
    if not os.environ.get(TOOL_VARIABLE) or os.environ.get("NVTX_DISABLE"):
        return NoBackend()
    failures: list[str] = []
    for backend in (NvtxPackage, InteropLibrary, TorchNvtx):
        try:
            return backend()
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            failures.append(f"{backend.name}: {error}")
    warnings.warn(
        f"An NVTX tool is attached ({os.environ[TOOL_VARIABLE]}), but no NVTX library works, so its trace will contain "
        f"NO phase ranges. Tried: {'; '.join(failures)}. Install or update the nvtx package, or use a newer tool.",
        RuntimeWarning,
        stacklevel=2,
    )
    return NoBackend()


_used: Backend | None = None


def use(backend: Backend | None) -> None:
    """Send this process's ranges to `backend` instead of an NVTX tool, until called with None. Only between ranges."""
    global _used
    _used = backend


def _chosen() -> Backend:
    return _used or _of_tool()


@functools.cache
def _of_tool() -> Backend:
    return choose()


def attached() -> bool:
    """Whether an NVTX tool watches this process. A tool sees spawned processes, but not forked ones."""
    return bool(os.environ.get(TOOL_VARIABLE))


@contextlib.contextmanager
def marked(name: str, index: int) -> Iterator[None]:
    """Mark the block as range `name` with payload `index`."""
    push(name, index)
    try:
        yield
    finally:
        pop()


def push(name: str, index: int) -> None:
    """Open the range `name` with payload `index` on this thread."""
    _chosen().push(name, index)


def pop() -> None:
    """Close this thread's innermost open range."""
    _chosen().pop()


def backend() -> str:
    """Name of the back end in use; "none" when no tool is attached or none can be reached."""
    return _chosen().name


if __name__ == "__main__":
    with marked("check", 0):
        print(f"{SAID}{backend()}", flush=True)
