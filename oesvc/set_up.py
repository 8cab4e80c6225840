"""What a set-up is unless the administrator says otherwise, and the error for one that cannot be used.

Imports next to nothing, for the `oegw` command starts with it.
"""

from pathlib import Path
from typing import Any

CONFIG_FILE = Path("/etc/oegw/oegw.conf")
CONTROL_SOCKET = "/run/oegw/control"
FORM: dict[str, Any] = {"interpolation": None, "inline_comment_prefixes": ("#", ";")}
"How oegw.conf is written, as `configparser` is told."


class SetUpError(Exception):
    """The configuration, a file of keys or a command cannot be used; the text says what is wrong, and where."""
