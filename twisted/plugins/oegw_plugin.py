"""Makes `twistd oegw` known."""

from twisted.application.service import ServiceMaker

oegw = ServiceMaker("oegw", "oesvc.tap", "Opportunistic encryption gateway (RFC 4322)", "oegw")
