"""A child process in which Triton runs its kernels in Python, on the CPU. Triton decides that when kernels are defined,
so the process of the tests itself keeps kernels that can be compiled ahead of time."""

import importlib
import multiprocessing
import os
import pickle
from multiprocessing.connection import Connection
from typing import Any


class Interpreter:
    """Calls functions of modules in the child; tensors travel by value."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, module: str, function: str, *args: Any, **kwargs: Any) -> Any:
        self._ours.send_bytes(pickle.dumps((module, function, args, kwargs)))
        is_error, result = pickle.loads(self._ours.recv_bytes())
        if is_error:
            raise result
        return result

    def close(self) -> None:
        self._ours.close()
        self._process.join()


def _serve(connection: Connection) -> None:
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            module, function, args, kwargs = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = False, getattr(importlib.import_module(module), function)(*args, **kwargs)
        except Exception as error:
            answer = True, error
        connection.send_bytes(pickle.dumps(answer))
