"""A plan for a person's eyes: as text in a terminal, and as a drawing. Pure: plan in, text out."""
