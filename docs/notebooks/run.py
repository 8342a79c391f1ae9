"""Run the notebooks of this folder from their first cell to their last, as a reader would.

python docs/notebooks/run.py [NAME ...] [--out FOLDER]      executed copies, by default in build/notebooks/
python docs/notebooks/run.py [NAME ...] --pages             also the pages and pictures of the docs, beside the notebooks
python docs/notebooks/run.py [NAME ...] --clean             only take outputs and traces of an editor out of the notebooks

Each notebook has a kernel and a folder of its own, laid out as the checkout: what it writes is gone afterwards. A cell that
fails ends the command with status 1, unless it is tagged `raises-exception`. Notebooks are stored without outputs, so that a
change of one is a change of its text or code; their pages, which have the outputs, are made here and committed.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LONGEST = 600  # seconds of a cell, and of the start of a kernel
KEPT = ("alt", "jupyter", "tags")  # what a stored cell may say about itself; alt: the text of its picture in the page
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def names() -> list[str]:
    """Return the names of all notebooks."""
    return sorted(path.stem for path in HERE.glob("*.ipynb"))


def read(name: str) -> nbformat.NotebookNode:
    """Return a stored notebook."""
    return nbformat.read(HERE / f"{name}.ipynb", as_version=4)


def text_of(notebook: nbformat.NotebookNode) -> str:
    """Return the contents of the file of a notebook, the same on every machine."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def cleaned(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return a notebook as it is stored: without outputs and counts, with cells numbered in their order."""
    clean = nbformat.from_dict(json.loads(json.dumps(notebook)))
    clean.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(clean.cells):
        cell.id = f"{name.replace('_', '-')}-{number:02d}"
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in KEPT if key in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    return clean


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in a fresh folder, so that they have their outputs. Raises an error of nbclient where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder).resolve()
        place = checkout / "docs" / "notebooks"
        place.mkdir(parents=True)
        (checkout / "students").symlink_to(ROOT / "students")
        where = {"metadata": {"path": str(place)}}
        # files as sockets: a port of the machine may be taken
        sockets = Config(ConnectionFileMixin={"transport": "ipc", "ip": str(checkout / "kernel")})
        limits = {"timeout": LONGEST, "startup_timeout": LONGEST}
        client = NotebookClient(
            notebook, kernel_name="python3", config=sockets, resources=where, coalesce_streams=True, **limits
        )
        try:
            client.execute()
        finally:
            _without_folder(notebook, str(place))


def _without_folder(notebook: nbformat.NotebookNode, folder: str) -> None:
    """Make paths in outputs relative, as they are for a reader who starts there."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = output.text.replace(f"{folder}/", "")


def page_of(notebook: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Return an executed notebook as a page in Markdown, and its pictures by file name. Cells tagged `check` are left out."""
    made = f"<!-- made from {name}.ipynb by `python docs/notebooks/run.py --pages` -->"
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\((\w+)\.ipynb\)", r"(\1.md)", cell.source))
            continue
        if "check" in cell.metadata.get("tags", []):
            continue
        is_python = not re.search(r"^%", cell.source, re.MULTILINE)
        parts.append(f"```{'python' if is_python else 'ipython'}\n{cell.source}\n```")
        for output in cell.outputs:
            if picture := output.get("data", {}).get("image/png"):
                file = f"{name}_{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(picture)
                parts.append(f"![{cell.metadata['alt']}]({file})")
            elif text := printed(output):
                parts.append(f"```text\n{text}\n```")
    note = f"This page is the notebook [docs/notebooks/{name}.ipynb]({name}.ipynb) with its outputs."
    return "\n\n".join([made, parts[0], note, *parts[1:]]) + "\n", pictures


def printed(output: nbformat.NotebookNode) -> str:
    """Return the text that an output shows, without the escapes of a terminal; an error is its last line."""
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    text = output.text if output.output_type == "stream" else output.data.get("text/plain", "")
    return "\n".join(line.rstrip() for line in ESCAPES.sub("", text).strip("\n").splitlines())


def write_pages(notebook: nbformat.NotebookNode, name: str) -> None:
    """Write the page of an executed notebook and its pictures, in place of those that were there."""
    page, pictures = page_of(notebook, name)
    for old in HERE.glob(f"{name}_*.png"):
        old.unlink()
    for file, data in pictures.items():
        (HERE / file).write_bytes(data)
    (HERE / f"{name}.md").write_text(page)


def run(name: str, out: Path, pages: bool) -> bool:
    """Execute a notebook, write what was asked for, and return whether all of its cells succeeded."""
    notebook = read(name)
    began = time.monotonic()
    failed = ""
    try:
        execute(notebook)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        lines = ESCAPES.sub("", str(error)).strip().splitlines()
        failed = next((line for line in reversed(lines) if line.strip()), type(error).__name__)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.ipynb").write_text(text_of(notebook))
    if failed:
        print(f"error: {name}.ipynb: {failed}; {out / name}.ipynb shows where", file=sys.stderr)
        return False
    if pages:
        write_pages(notebook, name)
    print(f"{name}: {time.monotonic() - began:.0f} s, {out / name}.ipynb", flush=True)
    return True


def main() -> int:
    """Run what the command line asks for, and return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all unless given")
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"), help="folder of the executed copies")
    parser.add_argument("--pages", action="store_true", help="write the pages and pictures of the docs too")
    parser.add_argument("--clean", action="store_true", help="only clean the stored notebooks")
    asked = parser.parse_args()
    chosen = [name.removesuffix(".ipynb") for name in asked.names] or names()
    if unknown := set(chosen) - set(names()):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    if asked.clean:
        for name in chosen:
            (HERE / f"{name}.ipynb").write_text(text_of(cleaned(read(name), name)))
        return 0
    succeeded = [run(name, asked.out, asked.pages) for name in chosen]
    return int(not all(succeeded))


if __name__ == "__main__":
    raise SystemExit(main())
