"""Machine images with everything installed: made from one short-lived instance of a stack."""
