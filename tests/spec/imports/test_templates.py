import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.spec.imports.templates import fill, has_template

ABOUT = {"name": "net", "framework": {"version": "1.6"}, "graph_path": "a.onnx", "count": 3, "open": "{{ open }}"}


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ name }}", "net"),
        ("{{ .Name }}-{{.Framework.Version}}", "net-1.6"),
        ("{{ .GraphPath }}", "a.onnx"),
        ("{{ count }}", "3"),
        ("{{ absent | default('x y') }}", "x y"),
        ('{{ .Absent | default "x" }}', "x"),
        ('{{ default "x" .Absent }}', "x"),
        ('{{ or .Absent "x" }}', "x"),
        ("{{ absent or 1.5 }}", "1.5"),
        ("{{ name | default('x') }}", "net"),
        ("{{- name -}}", "net"),
        ('{{ "x" }}', "x"),
        ("{{ absent }}", "{{ absent }}"),
        ("{{ open }}", "{{ open }}"),
        ("{{ framework }}", "{{ framework }}"),
        ("{{ name.upper() }}", "{{ name.upper() }}"),
        ("{{ __import__('os').getcwd() }}", "{{ __import__('os').getcwd() }}"),
        ("{{ a {{ name }}", "{{ a net"),
        ("{% if name %}", "{% if name %}"),
    ],
)
def test_templates_are_filled_by_names_and_literals_alone(template, wanted):
    filled, remarks = fill({**ABOUT, "x": [template]})
    assert filled["x"] == [wanted]
    assert remarks == ([(("x", 0), template, wanted)] if template != wanted else [])


def test_code_is_left_alone():
    assert fill({"name": "a", "preprocess": "{{ name }}"}, ("preprocess",))[0]["preprocess"] == "{{ name }}"


@given(st.text("{} |.'\"abdefult()-\n", max_size=200))
def test_no_text_breaks_it_and_text_without_braces_is_left_as_it_is(text):
    filled, remarks = fill({"x": text})
    assert has_template(text) or (filled == {"x": text} and not remarks)


def test_long_unclosed_templates_take_no_time():
    text = "{{ " * 20_000 + " " * 100_000
    assert fill({"x": text})[0] == {"x": text}
