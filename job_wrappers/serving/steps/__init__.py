"""One iteration as the ranks receive it."""
