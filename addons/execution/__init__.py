"""Acts on signals: paper orders by default, real ones when three switches allow it, each once."""
