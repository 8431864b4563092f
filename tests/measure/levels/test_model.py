from gnomon.measure.levels.model import model_span
from gnomon.measure.record import Session


def test_the_one_span_of_the_model_level_is_the_median_call():
    session = Session((0.3, 0.1, 0.2), (0.03, 0.01, 0.02), (0, 0, 0), 8, True, 1.0, 1.0, 1.0, 1)
    span = model_span(session, "task")
    assert (span.name, span.level, span.start_s, span.wall_s, span.cpu_s) == ("task", "model", 0.0, 0.2, 0.02)
