import subprocess
import sys
from pathlib import Path


def test_no_file_and_no_function_is_too_long(project: Path) -> None:
    done = subprocess.run([sys.executable, project / ".ci" / "sizes.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_most_files_are_short(project: Path) -> None:
    script = "import sizes, statistics as s; l=[f.lines for f in sizes.files()]; print(s.median(l), s.quantiles(l)[-1])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project / ".ci", capture_output=True, text=True, check=True
    )
    median, upper_quartile = map(float, done.stdout.split())
    assert median <= 130
    assert upper_quartile <= 250
