import itertools

import pytest

from gnomon.measure.probes.host import host_cost


class Simulated:
    """Says 1 us for a call, 30 us for a module's; fills of fresh memory cost a millisecond more."""

    def __init__(self):
        self.calls = itertools.count()

    def __call__(self, step, repeat):
        step()
        return {200: 1e-6, 10: 60e-6, 1: 200e-6}[repeat]

    def step_s(self):
        return 1e-9


def test_time_is_shared_by_the_operators_that_are_no_views_after_the_views_are_paid():
    cost = host_cost(Simulated())
    assert (cost.bare_s, cost.view_s) == (1e-6, 1e-6)
    assert cost.inference_s == pytest.approx((60e-6 - 24 * 1e-6) / 36)  # 12 blocks: 3 operators and 2 views each
    assert cost.forward_s > cost.inference_s
    assert min(cost.backward_s, cost.optimizer_s) >= cost.view_s
    assert cost.page_s == 0  # fresh and used memory took the same time


def test_no_operator_costs_less_than_a_view_however_the_clock_wavers():
    class Wavering(Simulated):
        def __call__(self, step, repeat):
            step()
            return 1e-6 if repeat == 200 else 2e-6

    cost = host_cost(Wavering())
    assert min(cost.inference_s, cost.forward_s, cost.backward_s, cost.optimizer_s) == pytest.approx(1e-6)


def test_a_fresh_page_costs_what_filling_it_takes_longer():
    class Faulting(Simulated):
        def __call__(self, step, repeat):
            made = step()
            if repeat == 1 and getattr(made, "nbytes", 0) > 2**20:
                return 1e-3 * (1 + next(self.calls) // 5 * -1 + 1)  # five fresh fills of 2 ms, then five of 1 ms
            return 100e-6

    assert host_cost(Faulting()).page_s == pytest.approx(1e-3 / (96 * 2**20 / 4096))
