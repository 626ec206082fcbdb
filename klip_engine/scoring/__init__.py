"""Scoring: KLIP densities, block maps, null distributions, regions and metrics."""
