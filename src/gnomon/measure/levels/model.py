"""The model level: a call as a whole, timed by `timing.time_interleaved` with nothing traced inside it."""

from gnomon.measure.record import Session, Span


def model_span(session: Session, name: str) -> Span:
    """The median call of a session as the one span that this level knows."""
    order = sorted(range(len(session.wall_s)), key=lambda i: session.wall_s[i])
    median = order[(len(order) - 1) // 2]
    return Span(name, "model", 0.0, session.wall_s[median], session.cpu_s[median], None)
