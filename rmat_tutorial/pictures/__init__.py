"""What the notebooks draw that is too long for a cell: one file for each kind of picture."""
