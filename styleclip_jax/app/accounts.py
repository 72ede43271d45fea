"""Accounts of the page: a file of names and passwords."""

import pathlib
import stat

from styleclip_jax.errors import UserError

_MAX_BYTES = 2**20


def read(path: str) -> dict[str, str]:
    """Passwords of a file by name.

    A line is "name:password"; empty lines, and those that begin with #, are none. No
    message shows a password.

    Args:
      path: file in UTF-8.

    Raises:
      UserError: no such file, a line is something else, a name is there twice, or
        there is none.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(
            'auth: expected a file with lines "name:password", since everybody on a '
            "machine sees its command lines; found no such file",
            field="auth",
        )
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: expected a file of 1 MB at most")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a text in UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, password = (x.strip() for x in line.partition(":"))
        if not (name and password):
            raise UserError(
                f'{path}: line {number}: expected "name:password", found '
                + ("no name" if not name else "no password")
            )
        if name in found:
            raise UserError(f"{path}: line {number}: expected each name once")
        found[name] = password
    if not found:
        raise UserError(f'{path}: expected lines "name:password", found none')
    return found


def is_exposed(path: str) -> bool:
    """Whether other users of the machine can read a file."""
    return bool(pathlib.Path(path).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
