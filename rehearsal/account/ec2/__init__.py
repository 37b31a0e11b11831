"""EC2 where moto drops or lacks something: launches, interfaces, placement, capacity, life."""
