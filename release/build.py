"""Builds every function with `sam build`, and prints the size of each zip."""

import argparse
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from release.function_zip import ARCHITECTURES


def build(architecture: str, folder: Path, project: Path = Path()) -> list[Path]:
    """Build the template's functions for one architecture and return their folders.

    Args:
        architecture: `arm64` or `x86_64`.
        folder: the output folder, for the built template and a folder per function.
        project: the folder of template.yaml.

    Raises:
        subprocess.CalledProcessError: `sam build` failed. Its output is on standard error.
    """
    sam = [str(Path(sys.executable).with_name("sam")), "build", "--parallel"]
    sam += ["--build-dir", str(folder), "--parameter-overrides", f"Architecture={architecture}"]
    environment = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(sam, cwd=project, env=environment, check=False, capture_output=True, text=True)  # noqa: S603 - our own arguments
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return sorted(path for path in folder.iterdir() if path.is_dir())


def sizes(function: Path) -> tuple[int, int]:
    """Return the total size of a built function's files, and the size of its zip, in bytes."""
    files = [path for path in function.rglob("*") if path.is_file()]
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, path.relative_to(function))
    return sum(path.stat().st_size for path in files), len(archive.getvalue())


def main(arguments: list[str] | None = None) -> None:
    """Build every function and print their sizes."""
    parser = argparse.ArgumentParser(prog="python -m release.build", description=main.__doc__)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="arm64")
    parser.add_argument("--folder", type=Path, default=Path(".aws-sam/build"))
    options = parser.parse_args(arguments)
    table = Table("function", title=f"built for {options.arch} in {options.folder}", title_justify="left")
    table.add_column("unzipped KiB", justify="right")
    table.add_column("zipped KiB", justify="right")
    try:
        folders = build(options.arch, options.folder)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    for folder in folders:
        table.add_row(folder.name, *(f"{size / 1024:,.0f}" for size in sizes(folder)))
    Console().print(table)


if __name__ == "__main__":
    main()
