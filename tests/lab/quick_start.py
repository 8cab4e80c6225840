"""README.md's quick start, read: what `make demo-deb` types is what a newcomer is told to type."""

from tests.lab.network import ROOT

README = ROOT / "README.md"
AT_MOST = 5
"Commands at each site."
EXAMPLES = {"192.0.2.1": "address", "198.51.100.0/24": "clients", "eth1": "inside", "198.51.100.7": "published"}
"README's examples, and what they are of a site (`SiteRow`)."


def block(beginning: str) -> list[str]:
    """The lines of the first indented block of README.md that begins so."""
    lines = README.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"    {beginning}"))
    last = next(number for number in range(first, len(lines)) if not lines[number].startswith("    "))
    return [line.strip() for line in lines[first:last]]


def commands() -> list[str]:
    """What is typed at a gateway, in order."""
    return block("apt install ")


def options() -> dict[str, str]:
    """What is written into oegw.conf, of `[gateway]`."""
    lines = (line.partition("#")[0].partition("=") for line in block("[gateway]")[1:])
    return {name.strip(): value.strip() for name, _, value in lines}
