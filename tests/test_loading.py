"""Loading of models and templates: what is refused."""

import pathlib

import pytest

from styleclip_jax import loading
from styleclip_jax.errors import UserError


def test_templates_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a {}\n\na photo of {}.\n")
    assert loading.load_templates(path) == ["a {}", "a photo of {}."]
    for content, found in (("", "none"), ("a {}\nno place\n", "'no place'")):
        path.write_text(content)
        with pytest.raises(UserError, match=f"templates.txt: .* found {found}"):
            loading.load_templates(path)
    with pytest.raises(UserError, match="nowhere"):
        loading.load_templates(tmp_path / "nowhere")
