"""Scene layout: the objects of a street and their positions."""
