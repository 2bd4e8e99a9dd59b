"""Scene layout: which objects a street has and where they are."""
