"""What `make test` says at its end is what happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

REPORT = """<testsuites><testsuite>
<testcase name="good"/>
<testcase name="bad"><failure message="x"/></testcase>
<testcase name="broken"><error message="x"/></testcase>
<testcase name="expected"><skipped type="pytest.xfail" message="known"/></testcase>
<testcase name="missing"><skipped type="pytest.skip" message="needs mongod"/></testcase>
</testsuite></testsuites>"""

SKIPPING = """
import pytest

def test_without_a_server():
    pytest.skip("needs a server: install it")
"""


def summary_of(report: Path) -> str:
    """What the summary prints for a report of pytest's."""
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import check; from pathlib import Path;"
        "check.summarise({'tests': (False, 1.0)}, check.read_report(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(report)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603 - fixed


def test_the_last_lines_count_and_name_what_could_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are failures, expected failures are neither, and a skip is named."""
    monkeypatch.delenv("CI", raising=False)
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    assert summary_of(report).splitlines()[-2:] == ["could not run: needs mongod", "1 passed, 2 failed"]


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_test_that_cannot_run_fails_only_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, status: int
) -> None:
    """The same skip is a remark on a developer's machine and a failure under CI=true."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the copy imports what the original does
    (tmp_path / "test_skipping.py").write_text(SKIPPING, encoding="utf-8")
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text("utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)  # noqa: S603
    assert (result.returncode, "needs a server: install it" in result.stdout) == (status, True)
