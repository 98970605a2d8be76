"""Pages for people: rows with their truth drawn, and what a data set is made of; changes no data."""
