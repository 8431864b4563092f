"""Where a model comes from: imported code, a Hugging Face configuration, an ONNX file; and its safetensors weights.

A manifest is data that may come from anybody, so the code that it names is imported only when it was installed on
purpose (site-packages, or Gnomon itself), or when the user trusts the manifest's own folder.
"""

import copy
import functools
import importlib
import importlib.machinery
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeCopyMode
from torch.overrides import TorchFunctionMode

from gnomon.core.digest import file_digest
from gnomon.core.errors import DamagedData, ManifestError, NotRunnable, did_you_mean
from gnomon.spec.task import Task

_MODELS_EXTRA = "Install it with: pip install 'gnomon[models]'"
_CONFIG_EXTRAS = {"attn_implementation", "experts_implementation", "dtype"}  # taken by every configuration class


def load(target: str, task: Task, key: str) -> Callable[..., Any]:
    """The object behind 'package.module:name', under the rules above. `key` is the manifest's key, for messages.

    Raises ManifestError for code that may not run or is not there, NotRunnable when importing it lacks a package.
    """
    where = f"task {task.name}: {key}"
    name, colon, attribute = target.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in name.split(".")):
        raise ManifestError(f"{where} is {target!r}; wanted 'package.module:callable'")
    with _importable(task):
        _refuse_strangers(name, task, where)
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                raise ManifestError(f"{where} is {target!r}; there is no module {error.name!r}") from error
            raise NotRunnable(f"{where} {target!r} needs the package {error.name!r}, which is not installed") from error
    if not hasattr(module, attribute):
        near = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise ManifestError(f"{where}: {name} has no {attribute!r}.{near}")
    found = getattr(module, attribute)
    if not callable(found):
        raise ManifestError(f"{where}: {target} is a {type(found).__name__}; wanted something to call")
    home = str(getattr(found, "__module__", None) or name).split(".")[0]
    if home in sys.stdlib_module_names or home == "builtins":  # os.system, seen through somebody's import
        raise ManifestError(f"{where}: {target} belongs to Python's standard library, which builds no models; refused")
    if home == "torch" and not (isinstance(found, type) and issubclass(found, nn.Module)):  # torch.hub.load runs files
        raise ManifestError(f"{where}: {target} is no module class; of torch itself only those may be called")
    return found


@contextmanager
def _importable(task: Task) -> Iterator[None]:
    """The manifest's folder first on the path, while trusted code is imported."""
    folder = str(Path(task.folder).resolve()) if task.trusted and task.folder else None
    if folder is None:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _refuse_strangers(name: str, task: Task, where: str) -> None:
    """Look at where a module lies before any of its code runs: first its top package, then itself."""
    allowed = [Path(__file__).resolve().parents[1], *_installed()]
    if task.trusted and task.folder:
        allowed.append(Path(task.folder).resolve())
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ManifestError(f"{where}: {name} is part of Python's standard library, which builds no models; refused")
    for part in dict.fromkeys((top, name)):
        try:
            spec = importlib.util.find_spec(part)
        except ModuleNotFoundError as error:
            raise ManifestError(f"{where}: there is no module {error.name!r}") from error
        except ValueError:  # a module that was made by hand and has no origin
            spec = None
        if spec is None:
            hint = "" if task.trusted else f", or trust the manifest's own folder with --trust ({task.folder or '.'})"
            raise ManifestError(f"{where}: there is no module {part!r} here. Install the package that has it{hint}")
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
        for place in places or ["nowhere"]:
            if not any(Path(place).resolve().is_relative_to(folder) for folder in allowed):
                raise ManifestError(
                    f"{where}: module {part!r} lies in {place}, outside the installed packages; its code was not run. "
                    "Install it as a package, or put it next to the manifest and pass --trust"
                )


def _installed() -> list[Path]:
    folders = [sysconfig.get_paths()[key] for key in ("purelib", "platlib")] + site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder).resolve() for folder in folders]


def model(task: Task) -> nn.Module:
    """The task's torch model on the CPU, seeded with model.seed, with its weights loaded and checked."""
    torch.manual_seed(task.model.seed)
    with _NoInitialization() if task.model.weights is not None else nullcontext():
        if task.model.source == "huggingface":
            built: nn.Module = _transformers_class(task)(_config(task))
        else:
            built = _call_builder(task)
    if task.model.weights is not None:
        _load_weights(built, task)
    return built


class _NoInitialization(TorchFunctionMode):
    """Leaves out the random values of torch.nn.init: weights from a file replace every one of them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def fake_model(task: Task, mode: FakeTensorMode, dtype: torch.dtype) -> nn.Module:
    """The task's model with fake parameters of `dtype`. A configuration takes no memory at all, whatever its size.

    Code of a 'python' source runs as it is, so its model exists for a moment in full.
    """
    if task.model.source == "python":
        torch.manual_seed(task.model.seed)
        built = fake_copy(_call_builder(task).to(dtype), mode)
    else:
        cls, config = _transformers_class(task), _config(task)
        initialization = importlib.import_module("transformers.initialization")
        with torch.device("meta"), initialization.no_init_weights():
            built = cls(config)
            built.tie_weights()  # left out together with the random values
        _fake_from_meta(built, mode, dtype)
    if task.model.weights is not None:
        with mode:
            _load_state(built, {key: torch.empty(shape) for key, shape in _weight_shapes(task).items()}, task)
    return built


def fake_copy(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of `module` whose tensors are fake; the module itself stays as it is, and no weight is copied.

    Integer and sparse buffers are copied with their values: indices and patterns decide what is computed.
    """
    real = {id(buffer): buffer.detach().clone() for buffer in module.buffers() if stays_real(buffer)}
    with FakeCopyMode(mode):
        return copy.deepcopy(module, real)


def stays_real(tensor: Tensor) -> bool:
    """Whether capture keeps the values of this tensor: integers, booleans and sparse matrices."""
    return tensor.layout is not torch.strided or not (tensor.is_floating_point() or tensor.is_complex())


def _fake_from_meta(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype) -> None:
    """Put fake CPU tensors in the place of meta tensors; tied weights stay tied."""
    made: dict[int, Tensor] = {}

    def fake(value: Tensor) -> Tensor:
        if id(value) not in made:
            kind = dtype if value.is_floating_point() else value.dtype
            with mode:
                new = torch.empty_strided(value.shape, value.stride(), dtype=kind, device="cpu")
            is_parameter = isinstance(value, nn.Parameter)
            made[id(value)] = nn.Parameter(new, requires_grad=value.requires_grad) if is_parameter else new
        return made[id(value)]

    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None:
                    table[name] = fake(value)  # type: ignore[assignment]


def _call_builder(task: Task) -> nn.Module:
    builder = load(task.model.target, task, "model.target")
    try:
        built = builder(**task.model.arguments)
    except TypeError as error:
        raise ManifestError(
            f"task {task.name}: {task.model.target} does not take model.arguments "
            f"({', '.join(task.model.arguments) or 'none'}): {error}"
        ) from error
    if not isinstance(built, nn.Module):
        raise ManifestError(
            f"task {task.name}: {task.model.target} returned a {type(built).__name__}; wanted a torch.nn.Module"
        )
    return built


def _transformers_class(task: Task) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise NotRunnable(
            f"task {task.name} needs the package transformers, which is not installed. {_MODELS_EXTRA}"
        ) from error
    target = task.model.target
    cls = getattr(transformers, target, None) if target.isidentifier() else None
    if cls is None:
        raise ManifestError(
            f"task {task.name}: transformers {transformers.__version__} has no class {target!r}."
            f"{did_you_mean(target, dir(transformers))}"
        )
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)) or cls.config_class is None:
        raise ManifestError(
            f"task {task.name}: transformers.{target} is no model class with a configuration; "
            "wanted one such as BertModel"
        )
    return cls


def _config(task: Task) -> Any:
    """The configuration with model.arguments; a key that the configuration does not know is an error."""
    config_class = _transformers_class(task).config_class
    known = config_class()
    for key in task.model.arguments:
        if key not in _CONFIG_EXTRAS and not hasattr(known, key):
            near = did_you_mean(key, [k for k in known.to_dict() if not k.startswith("_")])
            raise ManifestError(
                f"task {task.name}: model.arguments.{key} is no value of {config_class.__name__}.{near}"
            )
    try:
        return config_class(**task.model.arguments)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"task {task.name}: {config_class.__name__} refuses model.arguments: {error}") from error


def _weight_shapes(task: Task) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the header of the weights' file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise NotRunnable(
            f"task {task.name} needs the package safetensors, which is not installed. {_MODELS_EXTRA}"
        ) from error
    path = Path(str(task.model.weights))
    if not path.is_file():
        raise ManifestError(f"task {task.name}: model.weights: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except SafetensorError as error:
        raise DamagedData(f"{path} is no readable safetensors file: {error}") from error


def _load_weights(module: nn.Module, task: Task) -> None:
    path = Path(str(task.model.weights))
    _weight_shapes(task)  # says what is wrong with a file that cannot be read
    _check_digest(path, task)
    from safetensors.torch import load_file

    _load_state(module, load_file(path), task)


def _load_state(module: nn.Module, state: Mapping[str, Tensor], task: Task) -> None:
    """Every tensor of the model is in the state, and nothing else is; buffers that are not saved may be missing.

    The module's own hooks may rename or drop what is in the file, as with `load_state_dict` anywhere else.
    """
    where = f"task {task.name}: model.weights ({task.model.weights})"
    saved = module.state_dict(keep_vars=True)
    buffers = dict(module.named_buffers())
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        for key, value in state.items():
            if key in saved and saved[key].shape != value.shape:
                wanted = tuple(saved[key].shape)
                raise ManifestError(
                    f"{where}: {key} has shape {tuple(value.shape)}; the model wants {wanted}"
                ) from error
        raise ManifestError(f"{where}: {error}") from error
    lacking = set(result.missing_keys)
    loaded = {id(value) for key, value in saved.items() if key not in lacking}  # of tied tensors one name is enough
    missing = [key for key in result.missing_keys if id(saved[key]) not in loaded]
    unexpected = [key for key in result.unexpected_keys if key not in buffers]
    if missing or unexpected:
        parts = [f"lacks {_some(missing)}" if missing else "", f"has unknown {_some(unexpected)}" if unexpected else ""]
        raise ManifestError(f"{where} does not fit {type(module).__name__}: it {' and '.join(p for p in parts if p)}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _check_digest(path: Path, task: Task) -> None:
    wanted = task.model.weights_sha256
    if wanted is None:
        return
    status = path.stat()
    got = _digest_of(path, status.st_size, status.st_mtime_ns)
    if got.removeprefix("sha256:") != wanted.removeprefix("sha256:").lower():
        raise DamagedData(
            f"{path} is not the file that was locked: wanted SHA-256 {wanted}, got {got}. "
            "Fetch it again or resolve anew"
        )


@functools.lru_cache
def _digest_of(path: Path, size: int, modified_ns: int) -> str:
    """The file's digest, computed again only when the file was written: a process builds a task several times."""
    return file_digest(path)


def onnx_session(task: Task) -> Any:
    """An ONNX Runtime session on the CPU with task.threads threads."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotRunnable(
            f"task {task.name} needs the package onnxruntime, which is not installed. "
            "Install it with: pip install 'gnomon[onnx]'"
        ) from error
    path = Path(task.folder) / task.model.target
    if not path.is_file():
        raise ManifestError(f"task {task.name}: model.target: there is no file {path}")
    _check_digest(path, task)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a family of errors without a common base
        raise DamagedData(f"{path} is no model that ONNX Runtime can load: {error}") from error
