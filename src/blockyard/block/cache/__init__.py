"""Caches: a tier in memory (`ram`), a tier on a fast persistent device (`disk`), and what both are made of."""
