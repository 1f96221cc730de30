"""Formats of annotation tools and of training sets."""
