"""What the processes of the client say to each other, and how it travels. Knows neither side."""
