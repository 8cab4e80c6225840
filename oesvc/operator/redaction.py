"""Takes addresses and names out of what is handed to strangers, and leaves what belongs together recognizable."""

import re
from ipaddress import ip_address
from typing import Any

ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:])")
REVERSE = re.compile(r"(?:[0-9A-Fa-f-]+\.)+(?:in-addr|ip6)\.arpa\b\.?", re.IGNORECASE)
NAME = re.compile(r"(?<![\w./-])@?(?:[a-z0-9_-]+\.)+(?:[a-z]{2,})\b\.?(?!/)", re.IGNORECASE)
KEPT_NAMES = re.compile(r"arpa\.?$|\.(conf|key|pem|py|service|d)$", re.IGNORECASE)
KEPT_ADDRESSES = ("0.0.0.0", "::", "127.0.0.1", "::1")


class Redactor:
    """The same address or name becomes the same stand-in throughout."""

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}

    def redact(self, value: Any) -> Any:
        """Strings in any depth of lists and objects, keys of objects too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(key): self.redact(one) for key, one in value.items()}
        return [self.redact(one) for one in value] if isinstance(value, list | tuple) else value

    def _text(self, text: str) -> str:
        text = REVERSE.sub(lambda found: self._of("reverse name", found[0]), text)
        text = ADDRESS.sub(self._address, text)
        return NAME.sub(lambda found: found[0] if KEPT_NAMES.search(found[0]) else self._of("name", found[0]), text)

    def _address(self, found: "re.Match[str]") -> str:
        try:
            address = ip_address(found[0])
        except ValueError:
            return found[0]
        return found[0] if found[0] in KEPT_ADDRESSES else self._of(f"ipv{address.version}", str(address))

    def _of(self, kind: str, original: str) -> str:
        number = len(self._stand_ins) + 1
        return self._stand_ins.setdefault(original.lower(), f"<{kind} {number}>")
