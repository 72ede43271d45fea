"""Links of pages to files outside of docs/: such files become pages of the site.

Pages are written to be read in a checkout, where `../CONTRIBUTING.md` is a file. On the
site that file is the page `repository/CONTRIBUTING.md`. Markdown stays as it is, and
what it links to follows; a program is shown as it stands; pictures and notebooks are
copied. Links to what does not exist stay as they are, and fail the strict build.
"""

import pathlib
import posixpath
import re
from collections.abc import Callable
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = "repository"
# Files that are on the site as they are.
KEPT = (".gif", ".ipynb", ".jpg", ".md", ".png")

_CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()[^)#\s]+")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the files that pages link to, and those that these link to."""
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        for path in _outside(page):
            uri = _uri(path)
            if uri not in files.src_uris:
                file = _file(path, uri, config)
                files.append(file)
                if path.endswith(".md"):
                    pages.append(file)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with links to the places of files on the site."""
    here, folder = _home(page.file), posixpath.dirname(page.file.src_uri)

    def replace(target: str) -> str:
        path = _path(target, here)
        if path is None or (page.file.generated_by is None and _is_document(path)):
            return target
        return posixpath.relpath(_uri(path), folder or ".")

    return _map_links(markdown, replace)


def _outside(page: File) -> list[str]:
    """Paths from the root of the files outside of docs/ that a page links to."""
    found: list[str] = []
    here = _home(page)

    def keep(target: str) -> str:
        path = _path(target, here)
        if path is not None and not _is_document(path):
            found.append(path)
        return target

    _map_links(page.content_string, keep)
    return found


def _map_links(markdown: str, function: Callable[[str], str]) -> str:
    """Markdown with the target of each link replaced, those in code left alone."""
    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(lambda m: function(m[0]), part) for part in parts[::2]]
    return "".join(parts)


def _path(target: str, folder: str) -> str | None:
    """Path from the root of the file that a link leads to, None if there is none."""
    if ":" in target:
        return None
    path = posixpath.normpath(posixpath.join(folder, target))
    return path if (ROOT / path).is_file() else None


def _is_document(path: str) -> bool:
    return path.startswith("docs/")


def _home(page: File) -> str:
    """Folder in a checkout, from the root, of what a page shows."""
    uri = page.src_uri
    path = uri.removeprefix(f"{FOLDER}/") if page.generated_by else f"docs/{uri}"
    return posixpath.dirname(path)


def _uri(path: str) -> str:
    """Place of a file in the sources of the site."""
    if _is_document(path):
        return path.removeprefix("docs/")
    return f"{FOLDER}/{path}" if path.endswith(KEPT) else f"{FOLDER}/{path}.md"


def _file(path: str, uri: str, config: Any) -> File:
    source = ROOT / path
    if path.endswith(KEPT):
        return File.generated(config, uri, content=source.read_bytes())
    language = "python" if path.endswith(".py") else "text"
    text = f"# {path}\n\n````{language}\n{source.read_text()}````\n"
    return File.generated(config, uri, content=text)
