"""Rows that do not work yet, and who mends them. A row that works in spite of standing here fails."""

UNMENDED = {}
