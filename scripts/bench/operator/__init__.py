"""Neural operators beside what else could be used."""
