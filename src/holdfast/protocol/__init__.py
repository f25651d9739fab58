"""The words: what may be said on the wire. Values only; PROTOCOL.md is the same in prose."""
