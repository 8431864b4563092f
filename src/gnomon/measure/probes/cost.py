"""What a host costs per operator, as measured: a record without torch, for those who only read it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostCost:
    """Seconds per operator. bare_s: called from a loop. view_s: a view. page_s: a page of memory touched first.

    inference_s, forward_s, backward_s, optimizer_s: within modules, by mode and phase.
    """

    bare_s: float
    view_s: float
    page_s: float
    inference_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
