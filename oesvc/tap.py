"""`twistd oegw`: its options, and the service made of them."""

from pathlib import Path

from twisted.internet import reactor
from twisted.python.usage import Options as UsageOptions

from oesvc import config
from oesvc.gateway import GatewayService
from oesvc.set_up import CONFIG_FILE


class Options(UsageOptions):
    """Command line of `twistd oegw`."""

    synopsis = "[--config FILE]"
    longdesc = ("Opportunistic encryption gateway (RFC 4322): encrypts the traffic of this host, and of the networks "
                "behind it, with every peer whose gateway publishes its key in the DNS. See also oegw(1).")
    optParameters = [["config", "c", str(CONFIG_FILE), "The configuration file."]]  # noqa: RUF012


def makeService(options: Options) -> GatewayService:
    """The gateway. Ends the process with one line on standard error when the configuration cannot be used."""
    try:
        return GatewayService(config.load(Path(options["config"])), reactor)
    except config.ConfigError as error:
        # twistd shows a UsageError only while it parses options; here it would be a traceback.
        raise SystemExit(f"oegw: {error}") from None
