"""`oegw doctor`: what is wrong on this gateway and in its records, and what mends it."""
