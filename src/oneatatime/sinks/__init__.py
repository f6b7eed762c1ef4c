"""Where records are written: one room a format."""
