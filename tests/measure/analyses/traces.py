"""Traces as another tool would hand them over, made by hand."""

from gnomon.measure.record import Span, Trace

FLOP, READ, WRITTEN = 2e9, 3e6, 1e6


def span(name, level, start, wall, parent, **attributes):
    return Span(name, level, start, wall, None, parent, attributes)


def gpu_trace():
    """Two steps of a model of two layers on a GPU, with XSP's counters; layer 0 is the model itself.

    A step takes 10 ms: conv 6 ms (a kernel of 4 ms), fc 3 ms (two kernels of 1 ms, one of them after the layer's end).
    """
    spans = []
    for step in range(2):
        at, root = step * 0.02, len(spans)
        spans += [
            span("predict", "model", at, 0.010, None, batch_size="4"),
            span("net", "layer", at, 0.010, root, layer_sequence_index="0"),
            span("conv1", "layer", at, 0.006, root + 1, layer_sequence_index="1", layer_type="Conv2D",
                 shape=[4, 64, 56, 56], alloc_bytes="1024"),
            span("aten::convolution", "operator", at, 0.0055, root + 2),
            span("fc", "layer", at + 0.006, 0.003, root + 1, layer_sequence_index="2", layer_type="Dense",
                 shape=[4, 10], alloc_bytes="512"),
            span("sgemm", "kernel", at + 0.001, 0.004, root + 3, flop_count_sp=FLOP, dram_read_bytes=READ,
                 dram_write_bytes=WRITTEN, achieved_occupancy=0.5),
            span("gemv", "kernel", at + 0.006, 0.001, root + 4, flop_count_sp=1e6, dram_read_bytes=8e6,
                 dram_write_bytes=0, achieved_occupancy=0.25),
            span("gemv", "kernel", at + 0.0085, 0.001, root + 4, flop_count_sp=1e6, dram_read_bytes=8e6,
                 dram_write_bytes=0, achieved_occupancy=0.75),
        ]  # fmt: skip
    return Trace("by-hand", "otlp", tuple(spans))


def tree(draw_tree, level="layer"):
    """Spans of layers from nested (start, wall, children) with starts relative to the parent."""
    spans = [span("step", "model", 0.0, 1.0, None)]

    def add(node, start, parent):
        at, wall, children = node
        spans.append(span(f"l{len(spans)}", level, start + at, wall, parent, type=f"t{len(spans) % 3}"))
        here = len(spans) - 1
        for child in children:
            add(child, start + at, here)

    for node in draw_tree:
        add(node, 0.0, 0)
    return Trace("drawn", "chrome", tuple(spans))
