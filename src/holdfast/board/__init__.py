"""The live task board: a real application on holdfast, which uses only its public names."""
