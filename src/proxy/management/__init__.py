"""The management API: procedures and events, and the ways on which they travel."""
