from gnomon.spec.listing import listing
from tests.spec.write import HOST, task, write


def test_the_list_says_what_runs_here_and_why_the_rest_does_not(tmp_path):
    write(tmp_path, "good.yaml", task("good"))
    write(tmp_path, "needs.yaml", task("needs", hardware={"accelerators": [{"vendor": "AMD"}]}))
    write(tmp_path, "broken.yaml", "apiVersion: gnomon/v1\nkind: Task\n")
    entries = {e.name: e for e in listing([tmp_path], host=HOST)}
    assert entries["good"].why_not is None
    assert "wanted 1 accelerator (AMD)" in entries["needs"].why_not
    assert entries["sentence-embedding"].dims == {"B": 1, "L": 128}
    assert len(entries) >= 6
