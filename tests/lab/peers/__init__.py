"""Other people's IKEv1 daemons, to run on SG-B in oegw's place: static tunnels with raw RSA keys."""
