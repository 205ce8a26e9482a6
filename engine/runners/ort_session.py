"""ONNX Runtime's own side of a component: how its sessions are set, and what its errors mean."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import IncompatibleError, IntegrityError, MemoryBudgetError, PocketXLError
from ..install import needing
from ..specs import ComponentSpec, TensorSpec
from .processor import adds_in_16_bits, multiplies_in_tiles

FATAL = 4
"""Nothing below this is logged: what goes wrong comes as an error, and would be told twice."""
# Words of ONNX Runtime's, the C++ library's and the system's for memory that is not there.
_NO_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "cannot allocate memory")
_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "float16": "tensor(float16)"}


def import_onnxruntime() -> Any:
    """ONNX Runtime, or an `IncompatibleError` that says how to install it."""
    with needing("onnxruntime", "this engine"):
        import onnxruntime
    return onnxruntime


def open_session(
    model: Path,
    threads: int,
    *,
    patterns: bool,
    int8: bool,
    shared: bool = False,
    packed: bool = True,
    prepared: bool = False,
    keep_as: tuple[Path, str] | None = None,
) -> Any:
    """A session of `model` on the processor; its files must have been checked. Raises what ONNX Runtime raises.

    `int8`: whether it multiplies in int8 (see `session_options`). `shared`: it has its working memory from one arena of
    the process, for sessions that run one after another. `packed`: whether weights are copied in the layouts that
    kernels want, or used as they lie in their file. `prepared`: it is a graph that `keep_as` has written. `keep_as`:
    write the graph as it runs to a path, and its weights as kernels want them to a file of that name beside it.
    """
    ort = import_onnxruntime()
    options = session_options(ort, threads, patterns=patterns, tiles=int8 and multiplies_in_tiles())
    if shared:
        _share_arena(ort)
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if prepared:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if keep_as is not None:
        graph, weights = keep_as
        options.optimized_model_filepath = str(graph)
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


_shared = False


def _share_arena(ort: Any) -> None:
    """Make the process's arena, once. Sessions do not use it unless they are told to."""
    global _shared
    if _shared:
        return
    _shared = True
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {
        "max_mem": 0,
        "arena_extend_strategy": 0,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    with suppress(RuntimeError):  # the program that we are part of has made one
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg(settings))


def session_options(ort: Any, threads: int, *, patterns: bool, tiles: bool = False) -> Any:
    """How a session is set; `threads` inside one operator, `patterns` of memory kept from call to call.

    `tiles`: whether wide int8 convolutions become products of matrices.
    """
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # The arena stays on, ONNX Runtime's default. Without it the C library's heap fragments: SDXL's U-Net took 3.0 GB
    # and 17.8 s a call at 1024x1024 instead of 2.6 GB and 14.0 s.
    # Patterns are off where the arena is given back after each run. With them, calls of four pictures at 512x512 came
    # to 2.5 GB in the VAE, without them to 1.7; the VAE alone does not show it, and why is not understood.
    options.enable_mem_pattern = patterns
    options.intra_op_num_threads = threads
    # Threads that wait do sleep, and work is cut into pieces that get smaller: a thread whose core somebody else has
    # taken does not hold up the others. The miniature's loop took 0.35 s instead of 0.42 on two idle cores, and 0.43
    # instead of 0.58 with one of them taken. Spinning, a forward takes twice the processor's time, and threads burn on
    # after it; on cores that were all taken it took 1.8 to 2.7 times as long (`benchmarks.threads`).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    # Of weights behind `DequantizeLinear` ONNX Runtime makes products that round their inputs to 8 bits as well, unless
    # it is told what to compute in (1: float32). An engine says itself where inputs are rounded; a stand-in of a graph
    # for another back end was off by 0.9 % where nothing else is rounded.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # Without VNNI the products of uint8 and int8 are added in 16 bits, saturated and wrong without a word (a U-Net was
    # off by 6.7 % instead of 4.7). With this, weights become uint8, whose sums are exact. It needs zero points that no
    # two weights share. ONNX Runtime does it on every x86 processor that is told to, also where nothing overflows:
    # with AMX the bundled U-Net took 2.1 times as long for the same bits, a product of 1,024 x 1,280 x 5,120 7 times.
    if adds_in_16_bits():
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Wide convolutions become products of matrices, with the same bits, by zero points that are not folded into
    # constants; that pays where the products use AMX (`export/targets/cpu/conv_int8.py`). What else would be folded in
    # an int8 graph are shapes of norms' parameters; in others it may be weights.
    if tiles:
        options.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")
    return options


def run_options(ort: Any, *, shrink: str = "") -> Any:
    """For one run. `shrink`: arenas that are given back after it; for what runs once a picture, not in its loop."""
    options = ort.RunOptions()
    options.log_severity_level = FATAL
    if shrink:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrink)
    return options


def check_edge(name: str, session: Any, spec: ComponentSpec) -> None:
    """Hold a session's inputs and outputs to the declared ones. Raises `IntegrityError`."""
    for side, values, tensors in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        found = {value.name: value for value in values}
        wanted = {tensor.name: tensor for tensor in tensors}
        odd = sorted(set(found) ^ set(wanted)) or sorted(n for n in wanted if not _fits(found[n], wanted[n]))
        if odd:
            raise IntegrityError(
                f"{name}: engine.json and the model disagree on the {side} {', '.join(odd[:3])}; "
                "build the engine again with `pocketxl build`, or copy the folder again"
            )


def _fits(value: Any, tensor: TensorSpec) -> bool:
    fixed = zip(value.shape, tensor.shape, strict=False)
    return (
        value.type == _TYPES.get(tensor.dtype)
        and len(value.shape) == len(tensor.shape)
        and all(a == b for a, b in fixed if isinstance(a, int) and isinstance(b, int))
    )


def load_error(error: Exception, name: str, model: Path, gigabytes: float, place: str = "the machine") -> PocketXLError:
    """What it means that a session could not be made; `place` is whose memory it takes."""
    if lacks_memory(error):
        return MemoryBudgetError(
            f"{name}: {place} has not enough memory to load {gigabytes:.1f} GB; close other programs, or give a "
            "memory budget, with which components are loaded one after another"
        )
    return IncompatibleError(
        f"{name}: ONNX Runtime {import_onnxruntime().__version__} cannot load {model}: {error}. Rebuild the engine "
        "with this version, or install the version that engine.json names"
    )


def run_error(error: Exception, name: str, place: str = "the machine") -> PocketXLError:
    """What it means that a run failed."""
    if lacks_memory(error):
        return MemoryBudgetError(
            f"{name}: {place} ran out of memory; make a smaller picture, or see with `pocketxl plan` what one needs"
        )
    return IncompatibleError(f"{name}: ONNX Runtime {import_onnxruntime().__version__} could not run it: {error}")


def lacks_memory(error: Exception) -> bool:
    """Whether an error is about memory that is not there."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


def trim_heap() -> None:
    """Return freed heap pages to the system (glibc keeps them otherwise, which doubles the peak of a swap)."""
    import ctypes

    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc: nothing to trim
