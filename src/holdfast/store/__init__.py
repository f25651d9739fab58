"""The memory: where publications, and what they are about, are kept."""
