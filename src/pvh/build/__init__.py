"""From a Plan to an Image: guest RAM filled, entry state of the first processor."""
