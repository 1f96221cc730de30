"""Networks: torch modules and their losses, built from the plain settings that a card holds."""
