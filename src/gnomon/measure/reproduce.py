"""What a task computes, once, in a fresh child process: its outputs to the last bit, and its own measure of quality.

`outputs` is called through `core.process`: plain JSON in and out, arrays as .npy files.
"""

import hashlib
from pathlib import Path

from gnomon.core.process import JSON
from gnomon.core.records import from_json
from gnomon.spec.task import Task


def outputs(arguments: JSON) -> JSON:
    """Build the task, make one step, describe what came out.

    arguments: task, folder (where each output's values go as output-<i>.npy; None keeps none), quality (whether to
    evaluate the task's metric). Returns {outputs: [{name, dtype, shape, digest, file}], rounded, quality}: `digest` is
    of the bits, `rounded` that of `measure.outputs.outputs_digest`.
    Raises what building and running the task raises, CheckFailed for NaN and for other outputs than are declared.
    """
    import numpy as np
    import torch

    from gnomon.measure.outputs import outputs_digest, refuse_nan
    from gnomon.measure.session import start
    from gnomon.workload import source
    from gnomon.workload.application import check_outputs
    from gnomon.workload.program import build

    task: Task = from_json(arguments["task"], Task)
    start(task)
    program = build(task, device=task.device)
    values = [value.detach().to("cpu").contiguous() for value in program.step()]
    refuse_nan(values, task.name)
    if task.mode == "inference":
        check_outputs(task, tuple(values))
    names = [one.name for one in task.model.outputs] if task.mode == "inference" else ["loss"]
    described = []
    for i, value in enumerate(values):
        dtype = str(value.dtype).removeprefix("torch.")
        head = f"{dtype} {tuple(value.shape)};".encode()
        bits = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        file = None
        if arguments["folder"] is not None:
            file = str(Path(arguments["folder"], f"output-{i}.npy"))
            np.save(file, (value.float() if value.dtype == torch.bfloat16 else value).numpy())
        described.append(
            {
                "name": names[i] if i < len(names) else f"output-{i}",
                "dtype": dtype,
                "shape": list(value.shape),
                "digest": "sha256:" + hashlib.sha256(head + bits).hexdigest(),
                "file": file,
            }
        )
    quality = None
    if arguments["quality"] and task.quality.evaluate is not None:
        evaluate = source.load(task.quality.evaluate, task, "quality.evaluate")
        quality = float(evaluate(program.predict, dict(task.dims))[str(task.quality.metric)])
    return {"outputs": described, "rounded": outputs_digest(values), "quality": quality}
