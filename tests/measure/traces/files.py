"""Small traces of other tools, written by hand after the formats' descriptions."""

import gzip
import json


def event(name, start_us, length_us, category="cpu_op", thread=1, process=1, **arguments):
    times = {"ts": start_us, "dur": length_us}
    return {"ph": "X", "name": name, "cat": category, **times, "pid": process, "tid": thread, "args": arguments}


def flow(kind, start_us, key, thread, process):
    place = {"ts": start_us, "pid": process, "tid": thread}
    return {"ph": kind, "id": key, "name": "ac2g", "cat": "ac2g", "bp": "e", **place}


def gpu_events():
    """A step with a module, two operators and their kernels, as torch.profiler writes it on CUDA."""
    return [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "python"}},
        event("PyTorch Profiler (0)", 0, 1000, "Trace", "Spans", "Spans"),
        event("ProfilerStep#1", 100, 500, "user_annotation"),
        event("ProfilerStep#1", 190, 460, "gpu_user_annotation", 7, 0),
        event("nn.Module: Linear_0", 110, 200, "python_function"),
        event("torch/nn/modules/linear.py(124): forward", 112, 190, "python_function"),
        event("aten::linear", 120, 180, **{"External id": 3, "Input Dims": [[8, 128], [128, 128]]}),
        event("aten::addmm", 130, 160, **{"External id": 4}),
        event("cudaLaunchKernel", 140, 20, "cuda_runtime", correlation=11, **{"External id": 4}),
        event("sm90_gemm", 200, 300, "kernel", 7, 0, correlation=11, stream=7, device=0, **{"External id": 4}),
        event("aten::relu", 320, 30, **{"External id": 5}),
        event("relu_kernel", 500, 20, "kernel", 7, 0, stream=7, **{"External id": 5}),
        event("cudaDeviceSynchronize", 400, 190, "cuda_runtime", correlation=13),
        event("Memcpy DtoH", 560, 10, "gpu_memcpy", 8, 0, bytes=4096),
        flow("s", 325, 99, 1, 1),
        flow("f", 560, 99, 8, 0),
    ]


def chrome(events, **about):
    return json.dumps({"schemaVersion": 1, "deviceProperties": [], **about, "traceEvents": events})


def otlp_span(name, span_id, start_ns, end_ns, parent="", **attributes):
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    times = {"startTimeUnixNano": str(start_ns), "endTimeUnixNano": str(end_ns)}
    ids = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": span_id, "parentSpanId": parent}
    return {"name": name, "kind": 1, **ids, **times, "attributes": listed}


def otlp(spans):
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})


def put(folder, text, name="trace.json"):
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path
