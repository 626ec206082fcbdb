"""Training priors: healthy slices in, a bundle out."""
