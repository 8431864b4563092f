import pytest

from gnomon.forecast import cpu
from gnomon.forecast.work import Work

from .build import device


def test_a_cpu_reads_what_its_cache_holds_faster():
    machine = device(kind="cpu", cache_bytes=32e6)
    small, large = (Work("elementwise", "float32", 1.0, moved) for moved in (1e6, 1e9))
    per_byte = [cpu.price(w, machine).time.value_s / w.moved_bytes for w in (small, large)]
    assert per_byte[1] / per_byte[0] == pytest.approx(cpu.CACHED.value, rel=0.01)
