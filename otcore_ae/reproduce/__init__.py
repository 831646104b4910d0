"""`otcore-ae reproduce`: the papers' tables, cell by cell, beside the figures they published."""
