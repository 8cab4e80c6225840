"""The reverse map, validated: Twisted Names outside, ldns for the arithmetic inside."""
