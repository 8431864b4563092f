import pytest

from gnomon.core.errors import UsageError
from gnomon.forecast.rental import load


def written(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text, "utf-8")
    return path


def test_prices_are_read_by_any_name_of_a_device(tmp_path):
    prices = load(
        written(tmp_path, "currency: USD\nsource: a list\nper_hour: {H100-SXM5: 2.5, tesla t4: 1, cpu: 0.1}\n")
    )
    assert prices.per_hour == {"NVIDIA H100 SXM": 2.5, "NVIDIA Tesla T4": 1.0, "cpu": 0.1}
    assert (prices.currency, prices.source) == ("USD", "a list")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("per_hour: {T4: 1}", "currency: missing"),
        ("currency: USD\nper_hour: {}", "per_hour: wanted a value that is not empty"),
        ("currency: USD\nper_hour: {T4: -1}", "per_hour.T4: wanted a positive number, got -1"),
        ("currency: USD\nper_hour: {T4: .nan}", "per_hour.T4: wanted a"),
        ("currency: USD\nper_hour: {T4: cheap}", "per_hour.T4: wanted a .*, got 'cheap'"),
        ("currency: USD\nper_hour: {T4: 1, Tesla T4: 2}", "NVIDIA Tesla T4 has two prices; keep one"),
        ("currency: USD\nper_hour: {H100-SXN: 1}", "no device is called 'H100-SXN'. Did you mean 'H100-SXM'"),
        ("currency: USD\nper_hour: {T4: 1}\nper_month: 3", "per_month: unknown key"),
        ("currency: [", "wanted YAML 1.2 with 'currency' and 'per_hour', got"),
        ("- 1", "wanted a table of keys and values"),
        ("", "wanted a table of keys and values"),
    ],
)
def test_a_file_that_states_no_prices_is_refused_with_its_key(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        load(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
