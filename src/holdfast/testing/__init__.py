"""A small sea: what an application, and this library itself, is tested in."""
