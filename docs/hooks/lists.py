"""Lists that Markdown on the site takes for text: they fail the strict build.

An item after a paragraph needs an empty line before it there, while other readers of
Markdown go without.
"""

import logging
import re
from typing import Any

_LOG = logging.getLogger("mkdocs.hooks.lists")
_BLOCKS = re.compile(r"<pre.*?</pre>", re.DOTALL)
_ITEM = re.compile(r"^ *(?:\d+\.|[-*]) .*", re.MULTILINE)


def on_page_content(html: str, *, page: Any, **_: Any) -> None:
    """Warns of each line that begins as an item does."""
    for item in _ITEM.findall(_BLOCKS.sub("", html)):
        _LOG.warning(
            "%s: expected an item of a list, found text; put an empty line before "
            "it: %s",
            page.file.src_uri,
            item.strip()[:60],
        )
