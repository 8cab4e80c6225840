"""The forwarding plane: XFRM, nftables and NFQUEUE over netlink."""
