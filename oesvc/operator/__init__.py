"""What an administrator touches: the control socket and the oegw command."""
