"""Files that are whole or not there, and that say what they hold and where it comes from."""
